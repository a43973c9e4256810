"""Records of JSONL files, and of files that are one JSON array, whatever is in them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

from rlstack.data.file_kinds import DAMAGED, open_bytes
from rlstack.errors import ConfigError

MAX_LINE_MIB = 4  # what a row, and reading it, may take of the memory


def json_records(path: Path, *, here: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Each line's number, from 0, and the object on it; blank lines are skipped.

    Args:
        here: the setting and its value, for messages.

    Raises:
        ConfigError: the file cannot be read, or one of its lines is not a JSON object.
    """
    for index, line in enumerate(_lines(path, here=here)):
        at = line_name(index, here=here)
        if text := _decoded(line, at=at).strip():
            yield index, _parsed(text, at=at)


def json_array(path: Path, *, here: str) -> Iterator[dict[str, Any]]:
    """The objects of a file that is one JSON array; all of it is held at once. Raises as `json_records`."""
    try:
        with open_bytes(path) as file:
            content = file.read()
    except DAMAGED as error:
        raise _unreadable(error, here=here) from error
    records = _parsed_text(_decoded(content, at=here), at=here, accepted="the file must be one JSON array")
    for index, record in enumerate(records):
        yield _as_object(record, at=f"{here}, row {index} (from 0)", text=repr(record))


def num_lines(path: Path, *, here: str) -> int:
    """How many lines there are, blank ones included; raises as `json_records` where one is too long."""
    return sum(1 for _ in _lines(path, here=here))


def line_name(index: int, *, here: str) -> str:
    """The line of a record, for messages."""
    return f"{here}, line {index + 1}"


def shorten(text: str) -> str:
    """`text` for a message: its first 60 characters."""
    return text if len(text) <= 60 else f"{text[:60]}..."


def _lines(path: Path, *, here: str) -> Iterator[bytes]:
    limit = MAX_LINE_MIB << 20
    try:
        # A file opened in binary ends lines at "\n" only: JSON strings may hold U+2028 and its like.
        with open_bytes(path) as file:
            for index in count():
                line = file.readline(limit + 1)
                if len(line) > limit:
                    raise ConfigError(
                        f"{line_name(index, here=here)}: longer than {MAX_LINE_MIB} MiB; a line is one row: "
                        "drop it, or break the file into lines."
                    )
                if not line:
                    return
                yield line
    except DAMAGED as error:
        raise _unreadable(error, here=here) from error


def _unreadable(error: Exception, *, here: str) -> ConfigError:
    reason = getattr(error, "strerror", None) or error
    return ConfigError(
        f"{here} cannot be read ({reason}); give a JSONL or Parquet file, or the folder of a dataset."
    )


def _decoded(line: bytes, *, at: str) -> str:
    try:
        return line.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{at}: byte {error.start} is not UTF-8; convert the file to UTF-8.") from error


def _parsed(text: str, *, at: str) -> dict[str, Any]:
    record = _parsed_text(text, at=at, accepted="each line must be one JSON object")
    return _as_object(record, at=at, text=text)


def _parsed_text(text: str, *, at: str, accepted: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_object, parse_constant=_refuse, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{at}: not JSON ({error}): {shorten(text)}; {accepted}.") from error


def _as_object(record: object, *, at: str, text: str) -> dict[str, Any]:
    if not isinstance(record, dict):
        raise ConfigError(f'{at}: {shorten(text)} is not an object; write {{"problem": ...}}.')
    return record


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for key, value in pairs:
        if key in made:
            raise ValueError(f"the key {shorten(repr(key))} is there twice")
        made[key] = value
    return made


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number of JSON")


def _finite(digits: str) -> float:
    if not math.isfinite(number := float(digits)):
        raise ValueError(f"{shorten(digits)} is too large a number")
    return number
