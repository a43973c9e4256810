"""What W&B has written of a run that is offline, read without a server."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BLOCK_BYTES = 1 << 15  # of LevelDB's log format, of which W&B's files are
HEADER = struct.Struct("<IHB")  # checksum, length, and which part of a record it is
FULL, LAST = 1, 4


def records(path: Path) -> Iterator[Any]:
    """Each record of a .wandb file, in order."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, parts = path.read_bytes(), 7, b""  # seven bytes say what the file is
    while at + HEADER.size <= len(data):
        left = BLOCK_BYTES - at % BLOCK_BYTES
        if left < HEADER.size:
            at += left
            continue
        _, length, kind = HEADER.unpack_from(data, at)
        at += HEADER.size
        parts += data[at : at + length]
        at += length
        if kind in (FULL, LAST):
            yield Record.FromString(parts)
            parts = b""


def history(path: Path) -> dict[int, dict[str, Any]]:
    """Metrics by step."""
    rows = (record.history for record in records(path) if record.WhichOneof("record_type") == "history")
    return {row.step.num: {_key(item): json.loads(item.value_json) for item in row.item} for row in rows}


def last(path: Path, kind: str) -> Any:
    """The last record of that kind."""
    return [getattr(each, kind) for each in records(path) if each.WhichOneof("record_type") == kind][-1]


def updates(path: Path, kind: str) -> dict[str, Any]:
    """What all records of that kind, "config" or "summary", have set."""
    found = [getattr(each, kind) for each in records(path) if each.WhichOneof("record_type") == kind]
    return {_key(item): json.loads(item.value_json) for each in found for item in each.update}


def _key(item: Any) -> str:
    return item.key or "/".join(item.nested_key)
