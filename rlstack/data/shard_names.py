"""Names of Parquet files: which split they are of, and how many belong together. Pure."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable

PARQUET = re.compile(
    r"(?P<stem>.+?)(?:\.(?:snappy|gz|gzip|zstd|zst|lz4|brotli))?\.(?:parquet|parq|pq)(?:\.(?:gz|gzip|snappy|zst))?",
    re.IGNORECASE,
)
COUNTED = re.compile(r"(?P<split>.+?)-\d{1,6}-of-(?P<total>\d{1,6})(?:-[0-9a-f]{16})?")  # as the hub has them
# 0000, the hub's converted files; part-00000-<uuid>-c000, Spark's; shard_001.
NAMELESS = re.compile(
    r"\d+|part[-_.]?\d+(?:[-_.].*)?|(?:shard|chunk|file|batch|block|data|rows|output|partition)[-_.]?\d+",
    re.IGNORECASE,
)
NUMBERED = re.compile(r"(?P<split>.+?)[-_.](?P<number>\d{1,9})")  # train_0, train_1


def splits_by_name(names: Iterable[str]) -> dict[str, str | None]:
    """The split of each name of a Parquet file, in their order; None where the name does not say it.

    `train_0` and `train_1` are of one split, for they count from 0 or 1; `aime_24` and `aime_25` are splits.
    """
    stems = {name: match["stem"] for name in names if (match := PARQUET.fullmatch(name))}
    splits: dict[str, str | None] = {}
    in_a_row = _in_a_row(stems.values())
    for name, stem in stems.items():
        if NAMELESS.fullmatch(stem):
            splits[name] = None
        elif match := COUNTED.fullmatch(stem):
            splits[name] = match["split"]
        else:
            splits[name] = in_a_row.get(stem, stem)
    return splits


def num_promised(name: str) -> int:
    """How many files the split of a file has, as far as its name says it."""
    match = PARQUET.fullmatch(name)
    counted = COUNTED.fullmatch(match["stem"]) if match else None
    return int(counted["total"]) if counted else 1


def _in_a_row(stems: Iterable[str]) -> dict[str, str]:
    """The common beginning of each stem that is one of several, numbered in a row."""
    numbers: dict[str, dict[int, str]] = defaultdict(dict)
    for stem in stems:
        if match := NUMBERED.fullmatch(stem):
            numbers[match["split"]][int(match["number"])] = stem
    return {
        stem: split
        for split, by_number in numbers.items()
        if len(by_number) > 1 and max(by_number) - min(by_number) == len(by_number) - 1 and min(by_number) < 2
        for stem in by_number.values()
    }
