"""What the driver has to know to go on from a checkpoint, as JSON: run.json and rollouts.jsonl."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from rlstack.checkpoint.manifest import reading
from rlstack.data.records import Prompt, Rollout, RolloutGroup
from rlstack.errors import CheckpointError

RUN_STATE, ROLLOUTS = "run.json", "rollouts.jsonl"
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


def write_rollouts(folder: Path, rollouts: Rollouts) -> None:
    """Write them into the draft `folder`, a line for each group; every float comes back as it is."""
    with (folder / ROLLOUTS).open("w", encoding="utf-8") as file:
        for step, groups in sorted(rollouts.items()):
            for position, group in sorted(groups.items()):
                line = {"step": step, "position": position, "group": asdict(group)}
                file.write(json.dumps(line, default=np.ndarray.tolist) + "\n")


def read_rollouts(folder: Path) -> dict[int, dict[int, RolloutGroup]]:
    """Of the checkpoint `folder`, as they were given to `write_rollouts`.

    Raises CheckpointError naming the line that is not one of its; UnreadableCheckpoint if they cannot
    be read.
    """
    found: dict[int, dict[int, RolloutGroup]] = {}
    for number, line in _lines(folder / ROLLOUTS):
        try:
            record = json.loads(line)
            found.setdefault(record["step"], {})[record["position"]] = _group(record["group"])
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise CheckpointError(
                f"{folder / ROLLOUTS}:{number}: is not a group of rollouts ({error}); use another checkpoint"
            ) from None
    return found


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        with reading(path), path.open(encoding="utf-8") as file:
            yield from enumerate(file, start=1)
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path}: cannot be read ({error}); use another checkpoint") from None


def _group(record: dict[str, Any]) -> RolloutGroup:
    prompt = _with_tuples(Prompt, record["prompt"], "token_ids")
    rollouts = tuple(
        _with_tuples(Rollout, rollout, "token_ids", "generator_logprobs") for rollout in record["rollouts"]
    )
    return RolloutGroup(step=record["step"], prompt=prompt, rollouts=rollouts)


def _with_tuples(kind: Any, record: dict[str, Any], *names: str) -> Any:
    """A record of class `kind`, of which JSON has made lists of the tuples called `names`."""
    missing = {item.name for item in fields(kind)} - record.keys()
    if missing:
        raise ValueError(f"it lacks {', '.join(sorted(missing))}")
    return kind(**record | {name: tuple(record[name]) for name in names})
