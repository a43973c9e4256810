"""Model folders that bring code of their own along, which nothing here runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rlstack.model.files import CONFIG, read_object

FILES = (CONFIG, "tokenizer_config.json")
KEY = "auto_map"  # where transformers looks for the classes of `trust_remote_code`


def remote_code(key: str, folder: Path) -> Iterator[str]:
    """What to say about the folder that the setting `key` names, if its files ask for code of their own.

    A file that is missing or malformed asks for none, and is for others to refuse.
    """
    for name in FILES:
        try:
            settings = read_object(folder / name)
        except (OSError, ValueError):
            continue
        if settings.get(KEY):
            yield (
                f"{key} = {folder}: {name} asks for Python code of the model's own ({KEY}), not run; "
                f"give a model of a class that transformers has, and if this is one, take {KEY} out"
            )
