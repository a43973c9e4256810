"""The whole loop with played processes, and a reward that tells nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from rlstack.data.records import Outcome, Score
from rlstack.rewards.scorer import Question
from rlstack.telemetry.alarms import StoppedByAlarm
from tests.unit import played_team
from tests.unit.test_resume_loop import Runs

SCORES = {"constant": Score(reward=0.5), "failing": Score(reward=None, outcome=Outcome.error)}


@pytest.mark.parametrize(
    ("kind", "alarm", "last_step"), [("constant", "no_signal", 20), ("failing", "reward_errors", 10)]
)
def test_a_run_that_teaches_nothing_ends_in_order_and_again_when_it_is_taken_up(
    kind: str, alarm: str, last_step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def score(self: object, questions: Sequence[Question]) -> list[tuple[Score, ...]]:
        return [(SCORES[kind],) * len(question.responses) for question in questions]

    monkeypatch.setattr(played_team.Lengths, "score", score)
    runs = Runs(tmp_path, monkeypatch)
    settings = ["schedule.num_steps=40", "schedule.save_every=4", "evaluation.tasks=[]"]
    found = []
    for resume in (False, True):
        with pytest.raises(StoppedByAlarm, match=alarm):
            runs.train("barren", *settings, resume=resume)
        found.append(runs.left("barren"))
    assert found[0]["summary"]["status"] == "stopped"
    assert found[0]["summary"]["steps"] == last_step
    assert [row["alarm"] for row in found[0]["summary"]["alarms"] if row["action"] == "stop"] == [alarm]
    assert found[1] == found[0]
    assert sorted(path.name for path in (tmp_path / "barren" / "checkpoints").iterdir())[-1] == (
        f"step-{(last_step - 1) // 4 * 4:08d}"
    )
