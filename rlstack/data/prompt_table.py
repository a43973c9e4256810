"""The prompts of a task as columns of Arrow, kept for later starts in $XDG_CACHE_HOME/rlstack/prompts.

A file there has the digest of all that decides about its prompts in its name, and that of its own content. It
is mapped into memory, so that what steps do not touch takes none of it. Without the folder prompts are held
in memory.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple, overload

import numpy as np
import pyarrow as pa

from rlstack.config.reward_names import needs_answer
from rlstack.config.schema import Task
from rlstack.data.records import Prompt
from rlstack.data.rows import files_of_dataset
from rlstack.data.templates import TEMPLATES
from rlstack.errors import ConfigError
from rlstack.files import cache_folder
from rlstack.model.files import companions

BATCH_ROWS = 256  # of a record batch; tokenising takes about 150 KB for each prompt of 1,200 tokens meanwhile
MAX_BYTES, MAX_FILES = 32 << 30, 256  # of the folder; files that were used longest ago are removed
DAY_S = 86400  # after which a draft is nobody's
SCHEMA = pa.schema(
    [
        ("row", pa.int64()),
        ("problem", pa.string()),
        ("answer", pa.string()),
        ("token_ids", pa.list_(pa.int32())),
        ("largest_token", pa.int32()),  # -1 of a prompt without tokens
    ]
)
CODE = Path(__file__).parent  # which makes prompts of rows
PACKAGES = ("transformers", "tokenizers", "jinja2", "pyarrow")
WEIGHTS = frozenset({".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".onnx"})

logger = logging.getLogger(__name__)


class _Columns(NamedTuple):
    """Those of a record batch; arrays are views of its buffers."""

    rows: np.ndarray  # [BATCH_ROWS] int64
    problems: pa.StringArray
    answers: pa.StringArray
    offsets: np.ndarray  # [BATCH_ROWS + 1] int32, of the prompts in token_ids
    token_ids: np.ndarray  # int32
    largest_tokens: np.ndarray  # [BATCH_ROWS] int32

    @classmethod
    def of(cls, batch: pa.RecordBatch) -> _Columns:
        row, problem, answer, token_ids, largest = batch.columns
        numbers = [
            values.to_numpy(zero_copy_only=True)
            for values in (row, token_ids.offsets, token_ids.values, largest)
        ]
        return cls(numbers[0], problem, answer, *numbers[1:])


class PromptTable(Sequence[Prompt]):
    """The prompts of one task; each is made when it is taken, of columns that mostly are a mapped file's."""

    def __init__(
        self, task: str, batches: Iterable[pa.RecordBatch], places: np.ndarray | None = None
    ) -> None:
        """Of SCHEMA's `batches`, all but the last of BATCH_ROWS rows.

        places: the only rows to be there, in this order; None: all.
        """
        self._task = task
        self._batches = list(batches)
        self._columns = [_Columns.of(batch) for batch in self._batches]
        self._places = places
        self._size = sum(map(len, self._batches)) if places is None else len(places)

    def __len__(self) -> int:
        return self._size

    @overload
    def __getitem__(self, index: int) -> Prompt: ...
    @overload
    def __getitem__(self, index: slice) -> list[Prompt]: ...
    def __getitem__(self, index: int | slice) -> Prompt | list[Prompt]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        index = range(self._size)[index]
        batch, i = divmod(index if self._places is None else int(self._places[index]), BATCH_ROWS)
        columns = self._columns[batch]
        return Prompt(
            task=self._task,
            row=int(columns.rows[i]),
            problem=columns.problems[i].as_py(),
            answer=columns.answers[i].as_py(),
            token_ids=columns.token_ids[columns.offsets[i] : columns.offsets[i + 1]],
        )

    @property
    def num_tokens(self) -> np.ndarray:
        """[N] of each prompt, int64."""
        return self._of_all(np.diff(columns.offsets) for columns in self._columns)

    @property
    def largest_tokens(self) -> np.ndarray:
        """[N] the largest token id of each prompt, int64; -1 of one without tokens."""
        return self._of_all(columns.largest_tokens for columns in self._columns)

    def _of_all(self, numbers: Iterable[np.ndarray]) -> np.ndarray:
        found = np.concatenate([np.zeros(0, np.int64), *numbers])
        return found if self._places is None else found[self._places]

    def only(self, places: np.ndarray) -> PromptTable:
        """The prompts at these `places` alone; of a table that has all of them."""
        return PromptTable(self._task, self._batches, places)


def longest_tokens(prompts: Sequence[Prompt]) -> int:
    """Of the longest prompt; 0 without any."""
    if isinstance(prompts, PromptTable):
        return int(prompts.num_tokens.max(initial=0))
    return max((len(prompt.token_ids) for prompt in prompts), default=0)


def record_batch(
    *,
    rows: Sequence[int],
    problems: Sequence[str],
    answers: Sequence[str | None],
    token_ids: Sequence[np.ndarray],
) -> pa.RecordBatch:
    """At most BATCH_ROWS prompts as a batch of SCHEMA; token_ids: [P] int32 of each."""
    ends = np.cumsum([0, *map(len, token_ids)], dtype=np.int32)
    values = np.concatenate([np.zeros(0, np.int32), *token_ids])
    largest = [int(ids.max(initial=-1)) for ids in token_ids]
    columns = [rows, problems, answers, pa.ListArray.from_arrays(ends, values), largest]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)]
    return pa.record_batch(arrays, schema=SCHEMA)


def load_table(task: Task, key: str | None, batches: Callable[[], Iterator[pa.RecordBatch]]) -> PromptTable:
    """The table that was kept under `key`, or one of the `batches`, which is kept; None keeps nothing."""
    if key is None:
        return PromptTable(task.name, batches())
    if (found := _recall(key)) is None:
        try:
            _keep(key, batches())
        except OSError as error:
            logger.info("prompts of %s are tokenised again next time: %s", task.path, error)
        found = _recall(key)
    return PromptTable(task.name, batches() if found is None else found)


def is_kept(key: str | None) -> bool:
    """Return True if there is a file of `key`; its content has not been looked at."""
    return key is not None and any(cache_folder("prompts").glob(f"{key}.*.arrow"))


def table_key(task: Task, model: Path, *, where: str) -> str | None:
    """A digest of all that decides about the prompts of `task` but its name; None if a file cannot be read.

    These are the dataset's files, the task's settings, the files of the folder `model` but its weights, the
    code of this package and the versions of the packages that it calls.
    """
    here = f"{where}.path = {task.path!r}"
    try:
        files = files_of_dataset(Path(task.path), task.split, here=here)
        parts = [
            [(file.name, _digest(file)) for file in files],
            [TEMPLATES[task.template], task.problem_field, task.answer_field, needs_answer(task.reward)],
            task.chat_template_kwargs,
            [(name, _digest(model / name)) for name in _model_files(model)],
            [(file.name, _digest(file)) for file in sorted(CODE.glob("*.py"))],
            [(name, version(name)) for name in PACKAGES],
            platform.python_version(),
        ]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    except (OSError, ConfigError, TypeError, ValueError):  # the second is raised again where rows are read
        return None


def _model_files(folder: Path) -> list[str]:
    """Names of all from which transformers may make a tokenizer, weights excepted."""
    beside = {path.name for path in folder.iterdir() if path.is_file() and path.suffix not in WEIGHTS}
    return sorted(beside | set(companions(folder)))


def _digest(path: Path) -> str:
    found = path.stat()
    return _digest_of(path.resolve(), found.st_ino, found.st_size, found.st_mtime_ns)


@lru_cache(maxsize=1024)
def _digest_of(path: Path, *_: int) -> str:
    """SHA-256 of a file, which is read again once its number, size or time has changed."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _recall(key: str) -> list[pa.RecordBatch] | None:
    folder = cache_folder("prompts")
    with suppress(OSError):
        if _is_own(folder.stat()):
            for path in sorted(folder.glob(f"{key}.*.arrow")):
                with suppress(OSError, pa.ArrowException):
                    if (batches := _read(path, key)) is not None:
                        os.utime(path)
                        return batches
    return None


def _read(path: Path, key: str) -> list[pa.RecordBatch] | None:
    """The content kept under `key`; None if the file is another user's, damaged or of something else."""
    with path.open("rb") as file:
        if not _is_own(os.fstat(file.fileno())):
            return None
        if hashlib.file_digest(file, "sha256").hexdigest() != path.suffixes[0][1:]:
            return None
    reader = pa.ipc.open_file(pa.memory_map(str(path)))
    if reader.schema != SCHEMA or reader.schema.metadata != {b"key": key.encode()}:
        return None
    return [reader.get_batch(i) for i in range(reader.num_record_batches)]


def _keep(key: str, batches: Iterable[pa.RecordBatch]) -> None:
    """Write the `batches` to the folder, for `_recall`. Raises OSError."""
    folder = cache_folder("prompts")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not _is_own(folder.stat()):
        raise PermissionError(f"{folder} is another user's, or others may write to it")
    descriptor, draft = tempfile.mkstemp(dir=folder, prefix=".", suffix=".part")  # of mode 0600
    try:
        with os.fdopen(descriptor, "w+b") as file:
            with pa.ipc.new_file(file, SCHEMA.with_metadata({"key": key})) as writer:
                for batch in batches:
                    writer.write_batch(batch)
            file.flush()
            os.fsync(file.fileno())
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        os.replace(draft, folder / f"{key}.{digest}.arrow")
    finally:
        Path(draft).unlink(missing_ok=True)
    _remove_oldest(folder)


def _remove_oldest(folder: Path) -> None:
    """Keep MAX_FILES files of MAX_BYTES in all; processes that have a file mapped keep what it holds."""
    found = [(path.stat(), path) for path in folder.glob("*.arrow")]
    drafts = [path for path in folder.glob(".*.part") if time.time() - path.stat().st_mtime > DAY_S]
    num_bytes = 0
    for number, (status, path) in enumerate(sorted(found, key=lambda each: -each[0].st_mtime_ns)):
        num_bytes += status.st_size
        if number and (number >= MAX_FILES or num_bytes > MAX_BYTES):
            drafts.append(path)
    for path in drafts:
        path.unlink(missing_ok=True)


def _is_own(found: os.stat_result) -> bool:
    """Return True if it is this user's, and nobody else can write to it."""
    return found.st_uid == os.getuid() and not found.st_mode & 0o022
