"""How good the notes of a run truly are: what the reward model was made to miss."""

from __future__ import annotations

import re
import statistics
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rlstack.telemetry.rollout_shards import read_rollouts

sys.path.insert(0, str(Path(__file__).parent / "tiny"))
from note_task import NotePrompt, utility

UTILITY = "notes/utility"
PROBLEM = re.compile(r"Write a note to (\w+) about the (\w+)\.")


def utility_rows(rollouts: Path) -> Iterator[dict[str, Any]]:
    """The mean utility of each step's notes as rows like those of metrics.jsonl; none without notes."""
    by_step: dict[int, list[float]] = {}
    for row in read_rollouts(rollouts):
        if (value := note_utility(row)) is not None:
            by_step.setdefault(row["step"], []).append(value)
    for step, values in by_step.items():
        yield {"step": step, UTILITY: statistics.fmean(values)}


def note_utility(rollout: Mapping[str, Any]) -> float | None:
    """None for a rollout of another task."""
    match = PROBLEM.fullmatch(rollout["problem"])
    return None if match is None else utility(NotePrompt(*match.groups()), rollout["text"])
