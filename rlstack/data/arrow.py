"""Records of Parquet files and of Arrow files as Hugging Face's `datasets` writes them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rlstack.errors import ConfigError

BATCH_ROWS = 1024
# The latter two: a text that is not UTF-8, a time that Python has no number for.
UNREADABLE = (OSError, pa.ArrowException, ValueError, OverflowError)


def arrow_records(
    files: Sequence[Path], *, columns: Collection[str] | None, here: str
) -> Iterator[dict[str, Any]]:
    """The rows of all files, one after the other, as {column: value}; nulls are None.

    Args:
        columns: the only ones to read, where they are there; None = all.
        here: the setting and its value, for messages.

    Raises:
        ConfigError: a file cannot be read.
    """
    for path in files:
        try:
            for batch in _batches(path, columns):
                yield from batch.to_pylist()
        except UNREADABLE as error:
            raise _unreadable(path, error, here=here) from error


def num_arrow_rows(files: Sequence[Path], *, here: str) -> int:
    """How many rows `arrow_records` gives, without decoding them; raises as it does."""
    total = 0
    for path in files:
        try:
            if path.suffix == ".parquet":
                total += pq.read_metadata(path).num_rows
            else:
                total += sum(batch.num_rows for batch in _batches(path, columns=None))
        except UNREADABLE as error:
            raise _unreadable(path, error, here=here) from error
    return total


def _batches(path: Path, columns: Collection[str] | None) -> Iterator[pa.RecordBatch]:
    if path.suffix == ".parquet":
        with pq.ParquetFile(path) as file:
            yield from file.iter_batches(BATCH_ROWS, columns=_present(file.schema_arrow, columns))
        return
    with pa.memory_map(str(path)) as source, pa.ipc.open_stream(source) as stream:
        names = _present(stream.schema, columns)
        for batch in stream:
            batch.validate(full=True)  # or offsets that lead outside the file would end the process
            for start in range(0, batch.num_rows, BATCH_ROWS):
                yield batch.select(names).slice(start, BATCH_ROWS)


def _present(schema: pa.Schema, columns: Collection[str] | None) -> list[str]:
    return [name for name in schema.names if columns is None or name in columns]


def _unreadable(path: Path, error: Exception, *, here: str) -> ConfigError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return ConfigError(
        f"{here}: {path.name} cannot be read ({reason}); give a file that is whole, or write it again."
    )
