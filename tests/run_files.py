"""The files that a run has left, as tests compare them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rlstack.telemetry.metrics import is_timing

Results = tuple[list[dict[str, Any]], list[Any]]


def results_in(folder: Path) -> Results:
    """Every step's metrics but for times, and every rollout with its reward."""
    steps, rollouts = (
        [json.loads(line) for line in (folder / f"{file}.jsonl").read_text().splitlines()]
        for file in ("metrics", "rollouts")
    )
    return [{key: value for key, value in row.items() if not is_timing(key)} for row in steps], rollouts


def nodes_of(folder: Path, role: str) -> list[str]:
    """The addresses of the nodes on which the processes of `role` were, one after the other."""
    lines = (folder / "logs" / f"{role}.log").read_text().splitlines()
    return [line.partition(" on node ")[2].partition(",")[0] for line in lines if " on node " in line]
