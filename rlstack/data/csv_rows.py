"""Records of CSV files, and of TSV files, all of whose values are texts."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from rlstack.data.file_kinds import DAMAGED, open_bytes
from rlstack.data.json_lines import MAX_LINE_MIB, shorten
from rlstack.errors import ConfigError


def csv_records(path: Path, *, here: str) -> Iterator[dict[str, str]]:
    """Each row as {column: text}, by the names in the first line; blank lines are skipped.

    Args:
        here: the setting and its value, for messages.

    Raises:
        ConfigError: the file cannot be read, a column is there twice, or a row has more or fewer fields.
    """
    csv.field_size_limit(MAX_LINE_MIB << 20)
    delimiter = "\t" if ".tsv" in [suffix.lower() for suffix in path.suffixes] else ","
    line = 0
    try:
        with open_bytes(path) as file:
            text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
            rows = csv.reader(text, delimiter=delimiter, strict=True)
            names = next(rows, [])
            _refuse_twice(names, here=here)
            for row in rows:
                line = rows.line_num
                if row:
                    yield _record(names, row, at=f"{here}, line {line}")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{here}: not UTF-8 after line {line}; convert the file to UTF-8.") from error
    except csv.Error as error:
        raise ConfigError(f"{here}: not CSV after line {line} ({error}); write the file again.") from error
    except DAMAGED as error:
        raise ConfigError(f"{here} cannot be read ({error}); give a file that is whole.") from error


def _refuse_twice(names: list[str], *, here: str) -> None:
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"{here}: the column {shorten(repr(name))} is there twice; take one out.")


def _record(names: list[str], row: list[str], *, at: str) -> dict[str, str]:
    if len(row) != len(names):
        raise ConfigError(
            f"{at}: {len(row)} fields, and the first line names {len(names)}; put text with commas in quotes."
        )
    return dict(zip(names, row, strict=True))
