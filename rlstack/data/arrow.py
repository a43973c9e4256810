"""Records of Parquet files and of Arrow files, streams as Hugging Face's `datasets` writes them or others."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rlstack.data.file_kinds import FileKind, kind_of
from rlstack.data.json_lines import MAX_LINE_MIB
from rlstack.errors import ConfigError

BATCH_ROWS = 64  # a small file can hold much: a value that is in all rows may be there once
POINTER_BYTES = 8  # of each element of a list, in Python
INDEXED = b"ARROW1"
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
        ConfigError: a file cannot be read, has one of the columns twice, or a row that is longer than a
            line of JSONL may be.
    """
    num_rows = 0
    for path in files:
        try:
            for batch in _batches(path, columns, here=here):
                _refuse_long(batch, first_row=num_rows, here=here)
                num_rows += batch.num_rows
                yield from _as_written(batch).to_pylist()
        except UNREADABLE as error:
            raise _unreadable(path, error, here=here) from error


def num_arrow_rows(files: Sequence[Path], *, here: str) -> int:
    """How many rows `arrow_records` gives, without decoding them; raises as it does."""
    total = 0
    for path in files:
        try:
            if kind_of(path, here=here) is FileKind.parquet:
                total += pq.read_metadata(path).num_rows
            else:
                total += sum(batch.num_rows for batch in _batches(path, columns=None, here=here))
        except UNREADABLE as error:
            raise _unreadable(path, error, here=here) from error
    return total


def _batches(path: Path, columns: Collection[str] | None, *, here: str) -> Iterator[pa.RecordBatch]:
    if kind_of(path, here=here) is FileKind.parquet:
        with pq.ParquetFile(path) as file:
            names = _present(file.schema_arrow, columns, here=here)
            yield from file.iter_batches(BATCH_ROWS, columns=names)
        return
    with pa.memory_map(str(path)) as source:
        for batch in _arrow_batches(source):
            names = _present(batch.schema, columns, here=here)
            batch.validate(full=True)  # or offsets that lead outside the file would end the process
            for start in range(0, batch.num_rows, BATCH_ROWS):
                yield batch.select(names).slice(start, BATCH_ROWS)


def _refuse_long(batch: pa.RecordBatch, *, first_row: int, here: str) -> None:
    """Hold the rows against the limit of JSONL's lines while they are no Python objects yet."""
    limit = MAX_LINE_MIB << 20
    if sum(map(_num_bytes, batch.columns)) <= limit:
        return
    for row in range(batch.num_rows):
        if sum(_num_bytes(column.slice(row, 1)) for column in batch.columns) > limit:
            raise ConfigError(
                f"{here}, row {first_row + row} (from 0): longer than {MAX_LINE_MIB} MiB; drop it, or make "
                "several rows of it."
            )


def _num_bytes(array: pa.Array) -> int:
    """Bytes that the values take, each as often as it is there, and a pointer to each."""
    kind = array.type
    if isinstance(array, pa.ExtensionArray):
        return _num_bytes(array.storage)
    if pa.types.is_dictionary(kind):
        return _num_bytes(array.dictionary_decode())
    if pa.types.is_string_view(kind) or pa.types.is_binary_view(kind):
        return _num_bytes(array.cast(pa.large_binary()))
    if pa.types.is_run_end_encoded(kind):
        return _num_bytes(pc.run_end_decode(array))
    own = POINTER_BYTES * len(array)
    if pa.types.is_map(kind):
        first, end = (array.offsets[place].as_py() for place in (0, -1))
        return own + sum(_num_bytes(part.slice(first, end - first)) for part in (array.keys, array.items))
    if pa.types.is_struct(kind):
        return own + sum(map(_num_bytes, array.flatten()))
    if pa.types.is_nested(kind) and hasattr(array, "flatten"):
        return own + _num_bytes(array.flatten())
    return own + int(array.nbytes)


def _as_written(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch with its numbers of 32 bits as they were written: 0.1, not 0.10000000149011612."""
    for place, field in enumerate(batch.schema):
        if pa.types.is_float32(field.type):
            written = batch.column(place).cast(pa.string()).cast(pa.float64())
            batch = batch.set_column(place, field.with_type(pa.float64()), written)
    return batch


def _arrow_batches(source: pa.NativeFile) -> Iterator[pa.RecordBatch]:
    """Of a stream, or of a file with an index, which Feather files are too."""
    if source.read(len(INDEXED)) == INDEXED:
        with pa.ipc.open_file(source) as file:
            yield from (file.get_batch(i) for i in range(file.num_record_batches))
        return
    source.seek(0)
    with pa.ipc.open_stream(source) as stream:
        yield from stream


def _present(schema: pa.Schema, columns: Collection[str] | None, *, here: str) -> list[str]:
    names = [name for name in schema.names if columns is None or name in columns]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ConfigError(f"{here}: the column {twice!r} is there twice; write the file with one of them.")
    return names


def _unreadable(path: Path, error: Exception, *, here: str) -> ConfigError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return ConfigError(
        f"{here}: {path.name} cannot be read ({reason}); give a file that is whole, or write it again."
    )
