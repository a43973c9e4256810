"""What a Hugging Face folder holds beside the weights, and how a new one takes the place of an old one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Files of a tokenizer, of whatever kind; the custom templates of a model lie in a folder of their own.
COMPANIONS = (
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "spiece.model",
    "tekken.json",
    "chat_template*",
    "additional_chat_templates/*.jinja",
    "generation_config.json",
)


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
    """Give `folder` the config.json of `source`, with the weights' `dtype` ("float32"), and its tokenizer."""
    settings = json.loads((source / "config.json").read_text(encoding="utf-8"))
    settings.pop("torch_dtype", None)  # the older name of dtype
    settings["dtype"] = dtype
    text = json.dumps(settings, indent=2) + "\n"
    (folder / "config.json").write_text(text, encoding="utf-8")
    copy_tokenizer(source, folder)


def copy_tokenizer(source: Path, folder: Path) -> None:
    """Copy what `source` has of tokenizer, chat templates and generation settings to `folder`."""
    for pattern in COMPANIONS:
        for path in source.glob(pattern):
            if path.is_file():
                target = folder / path.relative_to(source)
                target.parent.mkdir(exist_ok=True)
                shutil.copyfile(path, target)
