"""Kinds of a dataset's files, by name and by first bytes, and compressed ones as if they were not."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from rlstack.errors import ConfigError

ACCEPTED = "JSONL, Parquet, Arrow, CSV or a JSON array"


class FileKind(StrEnum):
    jsonl = "JSONL"
    json = "JSON"
    csv = "CSV"
    parquet = "Parquet"
    arrow = "Arrow"


KINDS = {
    ".parquet": FileKind.parquet,
    ".parq": FileKind.parquet,
    ".pq": FileKind.parquet,
    ".arrow": FileKind.arrow,
    ".feather": FileKind.arrow,
    ".csv": FileKind.csv,
    ".tsv": FileKind.csv,
}
OTHERS = (
    ".zip",
    ".tar",
    ".tgz",
    ".7z",
    ".rar",
    ".xlsx",
    ".xls",
    ".pkl",
    ".pickle",
    ".npy",
    ".npz",
    ".pt",
    ".yaml",
)
MAGIC = {b"PAR1": FileKind.parquet, b"ARROW1": FileKind.arrow}
# By their first bytes.
OPENERS: dict[bytes, Callable[[Path], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ": lzma.open,
    b"\x28\xb5\x2f\xfd": lambda path: io.BufferedReader(pa.input_stream(str(path), compression="zstd")),
}
COMPRESSED = (".gz", ".gzip", ".bz2", ".xz", ".zst", ".zstd")
DAMAGED = (OSError, EOFError, zlib.error, lzma.LZMAError, pa.ArrowException)  # while such a file is read


def kind_of(path: Path, *, here: str) -> FileKind:
    """The kind of a file; what has none of the names is JSONL.

    Args:
        here: the setting and its value, for messages.

    Raises:
        ConfigError: it is of no kind that can be read.
    """
    start = _start(path)
    for magic, kind in MAGIC.items():
        if start.startswith(magic):
            return kind
    suffixes = [suffix.lower() for suffix in path.suffixes]
    while suffixes and suffixes[-1] in COMPRESSED:
        suffixes.pop()
    last = suffixes[-1] if suffixes else ""
    if last in OTHERS:
        raise ConfigError(f"{here}: a {last} file cannot be read; give {ACCEPTED}.")
    kind = KINDS.get(last, FileKind.jsonl)
    if kind in MAGIC.values() and _opener(start):
        raise ConfigError(f"{here} is a compressed {kind} file; unpack it.")
    if last == ".json" and _first_character(path) == b"[":
        return FileKind.json
    return kind


def open_bytes(path: Path) -> IO[bytes]:
    """The file's content, without the compression that it may have; raises OSError."""
    opened: IO[bytes] = (_opener(_start(path)) or (lambda path: path.open("rb")))(path)
    return opened


def _start(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(8)
    except OSError:  # which reading it will say
        return b""


def _opener(start: bytes) -> Callable[[Path], Any] | None:
    return next((opener for magic, opener in OPENERS.items() if start.startswith(magic)), None)


def _first_character(path: Path) -> bytes:
    try:
        with open_bytes(path) as file:
            return file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    except DAMAGED:
        return b""
