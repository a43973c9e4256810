"""The controller's part of a checkpoint: run.json, and rollouts.arrow with rollouts not trained on yet."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from rlstack.checkpoint.manifest import Digest, digest_of, reading
from rlstack.data.records import Prompt, Rollout, RolloutGroup
from rlstack.errors import CheckpointError
from rlstack.files import sync_to_disk

RUN_STATE, ROLLOUTS = "run.json", "rollouts.arrow"
_UTF8 = ("utf-8", "surrogatepass")  # a tokenizer may give half of a pair
_CODEC = "lz4"
_MOST = 300  # bytes of text to a compressed one; lz4 gives no more
_INTEGERS, _BYTES = pa.large_list(pa.int64()), pa.large_binary()
_SCHEMA = pa.schema(
    {
        "step": pa.int64(),
        "position": pa.int64(),  # of the prompt in its step
        "group_step": pa.int64(),
        "task": _BYTES,
        "row": pa.int64(),
        "problem": _BYTES,
        "answer": _BYTES,  # null where there is none
        "prompt_ids": pa.large_list(pa.int32()),
        "lengths": _INTEGERS,  # tokens of each rollout
        "token_ids": pa.large_list(pa.int32()),  # of all rollouts, end to end
        "logprobs": pa.large_list(pa.float32()),  # likewise
        "text_bytes": _INTEGERS,  # of each rollout
        "text": _BYTES,  # of all rollouts, end to end, compressed
        "finished": pa.large_list(pa.bool_()),
        "versions": _INTEGERS,
    }
)
_ARRAYS = ("prompt_ids", "token_ids", "logprobs")
# Of the steps not trained on yet: by step, and by the prompt's position in it.
Rollouts = Mapping[int, Mapping[int, RolloutGroup]]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunState:
    """Where a run stands after `step` optimiser steps."""

    step: int
    served_version: int  # of the policy, held by the engines
    reference_version: int
    positions: dict[str, int]  # bytes of each of the run's files that tell of these steps, by its name
    recorder: dict[str, Any] = field(default_factory=dict)  # JSON: sums that the files do not tell
    sync: dict[str, Any] = field(default_factory=dict)  # metrics of the last sync if no step has logged them

    def write(self, folder: Path) -> None:
        """Write it into the draft `folder`."""
        (folder / RUN_STATE).write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> RunState:
        """Of the checkpoint `folder`.

        Raises CheckpointError if it is missing or not what `write` writes; UnreadableCheckpoint if it cannot
        be read.
        """
        path = folder / RUN_STATE
        try:
            with reading(path):
                content = path.read_bytes()
            state = cls(**json.loads(content))
        except CheckpointError:  # which is a ValueError too
            raise
        except (ValueError, TypeError, RecursionError) as error:
            raise CheckpointError(f"{path}: cannot be read ({error}); use another checkpoint") from None
        for item in fields(cls):
            kind = int if item.type == "int" else dict
            if type(given := getattr(state, item.name)) is not kind:
                raise CheckpointError(f"{path}: {item.name} = {given!r}, but it is of type {kind.__name__}")
        return state


def write_rollouts(folder: Path, rollouts: Rollouts) -> Digest:
    """Write them into the draft `folder`, durably, and return the digest of the file.

    The file is an Arrow file with a batch per step and a row per group: about 10 bytes per sampled token, of
    which 8 are its int32 id and its float32 logprob and the rest is text, compressed.
    """
    path = folder / ROLLOUTS
    with path.open("wb") as file, pa.ipc.new_file(file, _SCHEMA) as writer:
        for step, groups in sorted(rollouts.items()):
            if groups:
                writer.write_batch(_batch(step, sorted(groups.items())))
    sync_to_disk(path)
    return digest_of(path)


def read_rollouts(folder: Path) -> dict[int, dict[int, RolloutGroup]]:
    """Of the checkpoint `folder`, as they were given to `write_rollouts`.

    Raises CheckpointError if the file is missing or holds something else; UnreadableCheckpoint if it cannot
    be read.
    """
    path = folder / ROLLOUTS
    with reading(path):
        content = path.read_bytes()
    found: dict[int, dict[int, RolloutGroup]] = {}
    try:
        with pa.ipc.open_file(content) as file:
            if file.schema != _SCHEMA:
                raise ValueError("its columns are others")
            for number in range(file.num_record_batches):
                batch = file.get_batch(number)
                batch.validate(full=True)
                for row in range(batch.num_rows):
                    step, position, group = _group({name: batch[name][row] for name in _SCHEMA.names})
                    found.setdefault(step, {})[position] = group
    except (ValueError, TypeError, ArithmeticError, OSError, MemoryError, pa.ArrowException) as error:
        raise CheckpointError(
            f"{path}: holds no groups of rollouts ({error}); use another checkpoint"
        ) from None
    return found


def _batch(step: int, groups: Sequence[tuple[int, RolloutGroup]]) -> pa.RecordBatch:
    records = [group for _, group in groups]
    rollouts = [group.rollouts for group in records]
    prompts = [group.prompt for group in records]
    texts = [[rollout.text.encode(*_UTF8) for rollout in of_group] for of_group in rollouts]
    columns = {
        "step": [step] * len(groups),
        "position": [position for position, _ in groups],
        "group_step": [group.step for group in records],
        "task": [prompt.task.encode(*_UTF8) for prompt in prompts],
        "row": [prompt.row for prompt in prompts],
        "problem": [prompt.problem.encode(*_UTF8) for prompt in prompts],
        "answer": [None if prompt.answer is None else prompt.answer.encode(*_UTF8) for prompt in prompts],
        "prompt_ids": _lists([prompt.token_ids for prompt in prompts], np.int32),
        "lengths": [[len(rollout.token_ids) for rollout in of_group] for of_group in rollouts],
        "token_ids": _lists(_joined(rollouts, "token_ids", np.int32), np.int32),
        "logprobs": _lists(_joined(rollouts, "generator_logprobs", np.float32), np.float32),
        "text_bytes": [list(map(len, of_group)) for of_group in texts],
        "text": [pa.compress(b"".join(of_group), codec=_CODEC, asbytes=True) for of_group in texts],
        "finished": [[rollout.finished for rollout in of_group] for of_group in rollouts],
        "versions": [[rollout.version for rollout in of_group] for of_group in rollouts],
    }
    arrays = [
        column if isinstance(column, pa.Array) else pa.array(column, field.type)
        for field, column in zip(_SCHEMA, columns.values(), strict=True)
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=_SCHEMA)


def _joined(rollouts: Sequence[Sequence[Rollout]], name: str, dtype: type) -> list[np.ndarray]:
    """The arrays `name` of each group's rollouts, end to end."""
    empty: np.ndarray = np.empty(0, dtype)
    return [np.concatenate([empty, *(getattr(rollout, name) for rollout in group)]) for group in rollouts]


def _lists(arrays: Sequence[np.ndarray], dtype: type) -> pa.Array:
    """A column of lists, without a Python object for each value."""
    offsets = np.cumsum([0, *map(len, arrays)], dtype=np.int64)
    values = np.concatenate([np.empty(0, dtype), *arrays])
    return pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(values))


def _group(row: Mapping[str, Any]) -> tuple[int, int, RolloutGroup]:
    """The step, the position and the group that a row of the file holds."""
    token_ids, logprobs, prompt_ids = (
        row[name].values.to_numpy() for name in ("token_ids", "logprobs", "prompt_ids")
    )
    value = {name: row[name].as_py() for name in _SCHEMA.names if name not in _ARRAYS}
    ends = list(accumulate(value["lengths"]))
    text_ends = list(accumulate(value["text_bytes"]))
    num_bytes = text_ends[-1] if text_ends else 0
    if min(value["lengths"] + value["text_bytes"], default=0) < 0 or num_bytes > _MOST * len(value["text"]):
        raise ValueError("its lengths are none")
    if (ends[-1] if ends else 0) != len(token_ids) or len(logprobs) != len(token_ids):
        raise ValueError("its tokens are not as many as their lengths")
    text = pa.decompress(value["text"], decompressed_size=num_bytes, codec=_CODEC, asbytes=True)
    rollouts = tuple(
        Rollout(
            token_ids=token_ids[end - length : end].copy(),
            generator_logprobs=logprobs[end - length : end].copy(),
            text=text[text_end - size : text_end].decode(*_UTF8),
            finished=finished,
            version=version,
        )
        for end, length, text_end, size, finished, version in zip(
            ends,
            value["lengths"],
            text_ends,
            value["text_bytes"],
            value["finished"],
            value["versions"],
            strict=True,
        )
    )
    prompt = Prompt(
        task=value["task"].decode(*_UTF8),
        row=value["row"],
        problem=value["problem"].decode(*_UTF8),
        token_ids=prompt_ids.copy(),
        answer=None if value["answer"] is None else value["answer"].decode(*_UTF8),
    )
    group = RolloutGroup(step=value["group_step"], prompt=prompt, rollouts=rollouts)
    return value["step"], value["position"], group
