"""Rows of a dataset on disk, one at a time: files of several kinds, and folders of Hugging Face datasets."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlstack.data.arrow import arrow_records, num_arrow_rows
from rlstack.data.csv_rows import csv_records
from rlstack.data.file_kinds import FileKind, kind_of
from rlstack.data.folders import files_of_split
from rlstack.data.json_lines import json_array, json_records, line_name, num_lines
from rlstack.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    index: int  # line of a JSONL file or row of any other dataset, from 0
    record: dict[str, Any]
    at: str  # where the row is, for messages


def read_rows(
    path: Path, *, where: str, split: str | None = None, columns: Collection[str] | None = None
) -> Iterator[Row]:
    """The rows of the dataset at `path`, in its order, without holding more than a batch of them.

    A file is Parquet, Arrow, CSV or TSV by its name, a JSON array if it ends in .json and begins as one, and
    JSONL otherwise; all but Parquet and Arrow may be compressed. Blank lines are skipped. A folder is what
    `save_to_disk` of Hugging Face's `datasets` wrote, a Dataset or a DatasetDict, or one of Parquet files.

    Args:
        where: the setting that the path comes from, for messages: `data.tasks[0].path`.
        split: of a folder; needed only if it holds several.
        columns: those that matter, which saves reading the others where the format allows; None = all.

    Raises:
        ConfigError: the dataset or one of its rows cannot be read.
    """
    here = f"{where} = {str(path)!r}"
    files = files_of_dataset(path, split, here=here)
    kind = kind_of(files[0], here=here)
    if kind is FileKind.jsonl:
        records: Iterable[tuple[int, dict[str, Any]]] = json_records(path, here=here)
    else:
        records = enumerate(_records(files, kind, columns, here=here))
    for index, record in records:
        yield Row(index=index, record=record, at=_at(index, kind, here))


def row_name(path: Path, index: int, *, where: str, split: str | None = None) -> str:
    """Where the row `index` of a dataset is, for messages; arguments as of `read_rows`."""
    here = f"{where} = {str(path)!r}"
    return _at(index, kind_of(files_of_dataset(path, split, here=here)[0], here=here), here)


def _at(index: int, kind: FileKind, here: str) -> str:
    return line_name(index, here=here) if kind is FileKind.jsonl else f"{here}, row {index} (from 0)"


def count_rows(path: Path, *, where: str, split: str | None = None) -> int:
    """How many rows `read_rows` gives, blank lines of a JSONL file included; raises as it does."""
    here = f"{where} = {str(path)!r}"
    files = files_of_dataset(path, split, here=here)
    kind = kind_of(files[0], here=here)
    if kind in (FileKind.parquet, FileKind.arrow):
        return num_arrow_rows(files, here=here)
    if kind is FileKind.jsonl:
        return num_lines(path, here=here)
    return sum(1 for _ in _records(files, kind, None, here=here))


def _records(
    files: list[Path], kind: FileKind, columns: Collection[str] | None, *, here: str
) -> Iterator[dict[str, Any]]:
    if kind is FileKind.csv:
        yield from csv_records(files[0], here=here)
    elif kind is FileKind.json:
        yield from json_array(files[0], here=here)
    else:
        yield from arrow_records(files, columns=columns, here=here)


def files_of_dataset(path: Path, split: str | None, *, here: str) -> list[Path]:
    """The file or files that hold the rows of the dataset at `path`; arguments and errors as read_rows."""
    if os.path.isdir(path):
        return files_of_split(path, split, here=here)
    if split is not None:
        raise ConfigError(f"{here} is one file, without a split {split!r}; leave the split out.")
    if not os.path.isfile(path):  # a pipe would be waited for, and a device has no end
        found = "it is neither a file nor a folder" if os.path.exists(path) else "there is no such file"
        raise ConfigError(
            f"{here} cannot be read ({found}); give a JSONL or Parquet file, or the folder of a dataset."
        )
    return [path]
