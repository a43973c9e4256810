"""Which files hold the rows of a Hugging Face dataset's folder.

The two layouts of `datasets.save_to_disk` (state.json of a Dataset, dataset_dict.json of a DatasetDict), and
dataset repositories of the hub, whose Parquet files are named after their split: data/train-00000-of-00005.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from rlstack.data.json_lines import shorten
from rlstack.errors import ConfigError

SHARD = re.compile(r"(?P<split>.+?)(-\d{5}-of-(?P<total>\d{5})(-[0-9a-f]{16})?)?\.parquet")


def files_of_split(folder: Path, split: str | None, *, here: str) -> list[Path]:
    """The .arrow or .parquet files of one split, in order.

    Args:
        split: may be None if there is only one.
        here: the setting and its value, for messages.

    Raises:
        ConfigError: the folder is no dataset, or there is no such split, or it is not all there.
    """
    splits = _splits(folder, here=here)
    names = ", ".join(splits)
    if split is None and len(splits) > 1:
        raise ConfigError(f"{here} has the splits {names}; choose one as split, next to the path.")
    chosen = next(iter(splits)) if split is None else split
    if chosen not in splits:
        raise ConfigError(f"{here} has no split {split!r}; choose from: {names}.")
    files = splits[chosen]
    num_there, num_promised = sum(map(os.path.isfile, files)), max(map(_num_promised, files))
    if num_there < max(num_promised, len(files)):
        raise ConfigError(
            f"{here} has {num_there} of the {max(num_promised, len(files))} files of the split {chosen!r}; "
            "copy the whole folder."
        )
    return files


def _num_promised(file: Path) -> int:
    """How many files its split has, as far as the name says it."""
    match = SHARD.fullmatch(file.name)
    return int(match["total"] or 1) if match else 1


def _splits(folder: Path, *, here: str) -> dict[str, list[Path]]:
    if (folder / "state.json").is_file():
        return {"train": _saved_files(folder, here=here)}
    if (folder / "dataset_dict.json").is_file():
        names = _field(folder / "dataset_dict.json", "splits", here=here)
        inside = [_inside(folder / "dataset_dict.json", name, here=here) for name in names]
        return {name: _saved_files(folder / name, here=here) for name in inside}
    if splits := _shards(folder / "data") or _shards(folder):
        return splits
    raise ConfigError(
        f"{here} is a folder without a dataset; give a folder that save_to_disk wrote (with state.json or "
        "dataset_dict.json), one with Parquet files, or a file."
    )


def _saved_files(folder: Path, *, here: str) -> list[Path]:
    path = folder / "state.json"
    entries = _field(path, "_data_files", here=here)
    names = [entry.get("filename") if isinstance(entry, dict) else entry for entry in entries]
    return [folder / _inside(path, name, here=here) for name in names]


def _inside(path: Path, name: object, *, here: str) -> str:
    """`name`, which the file at `path` gives, if it is that of a file or folder beside it."""
    if not isinstance(name, str) or name in ("", ".", "..") or "/" in name or "\0" in name:
        raise ConfigError(
            f"{here}: {path.name} names {shorten(repr(name))}, which is nothing beside it; save the dataset "
            "again."
        )
    return name


def _field(path: Path, key: str, *, here: str) -> list[Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))[key]
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise ConfigError(
            f"{here}: {path.name} is not what save_to_disk writes ({error!r}); save it again."
        ) from error
    if not isinstance(values, list) or not values:
        raise ConfigError(f"{here}: {path.name} lists nothing as {key}; save the dataset again.")
    return values


def _shards(folder: Path) -> dict[str, list[Path]]:
    splits: dict[str, list[Path]] = {}
    for path in sorted(folder.glob("*.parquet")):
        if match := SHARD.fullmatch(path.name):
            splits.setdefault(match["split"], []).append(path)
    return splits
