"""What a Hugging Face folder holds beside the weights, and how a new one takes the place of an old one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rlstack.model.files import CONFIG, companions, open_file, read_object, refuse_damaged


@contextmanager
def replaced_at_once(folder: Path) -> Iterator[Path]:
    """An empty folder to fill, which takes the place of `folder` when the context ends well.

    No reader ever sees half a folder under that name. Ended badly, the old one is as it was.
    """
    draft = folder.with_name(folder.name + ".partial")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        yield draft
        previous = folder.with_name(folder.name + ".previous")
        shutil.rmtree(previous, ignore_errors=True)
        if folder.exists():
            folder.rename(previous)
        draft.rename(folder)
        shutil.rmtree(previous, ignore_errors=True)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def write_companions(source: Path, folder: Path, *, dtype: str) -> None:
    """Give `folder` the config.json of `source`, with the weights' `dtype` ("float32"), and its tokenizer.

    Raises ConfigError for a source whose files are damaged, or none, or lead out of it.
    """
    refuse_damaged(source, (CONFIG,), setting="policy.model")
    settings = read_object(source / CONFIG)
    settings.pop("torch_dtype", None)  # the older name of dtype
    settings["dtype"] = dtype
    text = json.dumps(settings, indent=2) + "\n"
    (folder / CONFIG).write_text(text, encoding="utf-8")
    copy_tokenizer(source, folder)


def copy_tokenizer(source: Path, folder: Path) -> None:
    """Copy what `source` has of tokenizer, chat templates and generation settings to `folder`, as new files.

    Raises ValueError for what is no file of the source, or leads out of it.
    """
    for name in companions(source):
        target = folder / name
        target.parent.mkdir(exist_ok=True)
        with open_file(source, name) as content, target.open("xb") as file:
            shutil.copyfileobj(content, file)
