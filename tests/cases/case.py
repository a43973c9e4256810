"""Cases: small inputs with the outcome that is right, one JSON object a line.

    {"id": "c01", "kind": "config/text", "input": {"how": "...", ...}, "expected": {...}, "guard": true}

`how` names the command or function (runners.RUNNERS), the rest of `input` is what it gets. `kind` is the kind
of mistake that the case stands for. A case with `guard` shows where a rule for the kind has to end: it is
right without the rule, and has to stay right.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("RLSTACK_SHARED_CASES", ROOT.parent / "shared" / "cases"))

Outcome = dict[str, Any]  # what a runner saw: "error" with a ConfigError's text, or what came instead


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One line of a file of cases."""

    id: str
    kind: str
    input: dict[str, Any]
    expected: Any  # of the project's own files: a part of the Outcome; of shared files: that, or prose
    guard: bool
    own: bool  # of the project's own files

    @property
    def how(self) -> str:
        return self.input["how"]


def read_cases(path: Path) -> list[Case]:
    """The cases of one file; KeyError for a line without one of the fields."""
    own = path.resolve().parent == Path(__file__).resolve().parent
    lines = path.read_text(encoding="utf-8").split("\n")
    return [_case(json.loads(line), own=own) for line in lines if line.strip()]


def files_at_hand() -> list[Path]:
    """The project's own files, and the shared one where it is there."""
    own = sorted(Path(__file__).resolve().parent.glob("*.jsonl"))
    shared = SHARED / "rewards_and_data.jsonl"
    return [*own, shared] if shared.exists() else own


def _case(line: dict[str, Any], *, own: bool) -> Case:
    return Case(
        id=line["id"],
        kind=line["kind"],
        input=line["input"],
        expected=line["expected"],
        guard=line.get("guard", False),
        own=own,
    )
