"""Which files hold the rows of a Hugging Face dataset's folder.

The two layouts of `datasets.save_to_disk` (state.json of a Dataset, dataset_dict.json of a DatasetDict), and
folders of Parquet files, named after their split or below a folder with its name; see shard_names.py.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from rlstack.data.json_lines import shorten
from rlstack.data.shard_names import num_promised, splits_by_name
from rlstack.errors import ConfigError

SPLITS = ("train", "test", "validation", "valid", "val", "dev", "eval")  # that a folder may be called
MAX_DEPTH = 3  # of folders in each other: default/train/0000.parquet
SINGLE = {".jsonl", ".json", ".csv", ".tsv", ".arrow"}  # files that are datasets by themselves
MAX_NAMED = 8  # files or folders in a message


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
    num_there, promised = sum(map(os.path.isfile, files)), max(num_promised(file.name) for file in files)
    if num_there < max(promised, len(files)):
        raise ConfigError(
            f"{here} has {num_there} of the {max(promised, len(files))} files of the split {chosen!r}; "
            "copy the whole folder."
        )
    return files


def _splits(folder: Path, *, here: str) -> dict[str, list[Path]]:
    splits = _splits_below(folder, MAX_DEPTH, here=here)
    if not splits:
        raise ConfigError(
            f"{here} is a folder without a dataset; give a folder that save_to_disk wrote (with state.json "
            f"or dataset_dict.json), one with Parquet files, or a file{_files_there(folder)}."
        )
    nameless = folder.name if folder.name in SPLITS else SPLITS[0]
    return {nameless if name is None else name: files for name, files in splits.items()}


def _splits_below(folder: Path, depth: int, *, here: str) -> dict[str | None, list[Path]]:
    """The files of each split, None for those whose names do not say of which; {} without a dataset.

    Raises ConfigError for several folders that have several splits each.
    """
    if (folder / "state.json").is_file():
        return {None: _saved_files(folder, here=here)}
    if (folder / "dataset_dict.json").is_file():
        names = _field(folder / "dataset_dict.json", "splits", here=here)
        inside = [_inside(folder / "dataset_dict.json", name, here=here) for name in names]
        return {name: _saved_files(folder / name, here=here) for name in inside}
    if splits := _shards(folder / "data") or _shards(folder):
        return splits
    found = {sub.name: _splits_below(sub, depth - 1, here=here) for sub in _folders(folder)} if depth else {}
    found = {name: splits for name, splits in found.items() if splits}
    if all(set(splits) <= {None, name} for name, splits in found.items()):
        return {name: [file for files in splits.values() for file in files] for name, splits in found.items()}
    if len(found) == 1:  # a configuration, the only one
        return next(iter(found.values()))
    folders = ", ".join(list(found)[:MAX_NAMED])
    raise ConfigError(f"{here} has the folders {folders}, each a dataset; add one of them to the path.")


def _folders(folder: Path) -> list[Path]:
    try:
        return sorted(sub for sub in folder.iterdir() if sub.is_dir() and sub.name[0] not in "._")
    except OSError:
        return []


def _files_there(folder: Path) -> str:
    """For a message: the files that may hold rows."""
    names = sorted(path.name for path in folder.iterdir() if SINGLE & set(path.suffixes))
    return f", for example {', '.join(names[:MAX_NAMED])}" if names else ""


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


def _shards(folder: Path) -> dict[str | None, list[Path]]:
    splits: dict[str | None, list[Path]] = {}
    if folder.is_dir():
        paths = {path.name: path for path in sorted(folder.iterdir()) if not path.is_dir()}
        for name, split in splits_by_name(paths).items():
            splits.setdefault(split, []).append(paths[name])
    return splits
