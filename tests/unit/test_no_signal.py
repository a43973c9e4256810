"""When steps that teach nothing end a run, and when they do not."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from rlstack.config.alarms import AlarmAction
from rlstack.config.schema import Alarms as Settings
from rlstack.config.schema import RunConfig
from rlstack.telemetry.alarms import Alarms, StoppedByAlarm
from rlstack.telemetry.recorder import Recorder

Row = dict[str, float]


def step(formed: int = 0, *, of: int = 16, grad_norm: float | None = None, **others: float) -> Row:
    """A row of a step with `formed` prompts of `of` whose rewards differ; no gradient without grad_norm."""
    row = {"pairs/formed": formed, "pairs/skipped": of - formed, "reward/mean": 0.0}
    row |= {name.replace("__", "/"): value for name, value in others.items()}
    return row if grad_norm is None else row | {"grad_norm": grad_norm}


GOOD = step(3, grad_norm=0.5, reward__mean=0.2)


def stopped_at(rows: list[Row], *, needs_contrast: bool = True, **changes: Any) -> int | None:
    """The step at which no_signal stops a run of these rows."""
    settings = Settings()
    for name, value in changes.items():
        setattr(settings.no_signal, name, value)
    alarms = Alarms(settings, needs_contrast=needs_contrast)
    for number, row in enumerate(rows, 1):
        for raised in alarms.update(number, row):
            if raised.alarm == "no_signal" and raised.action is AlarmAction.stop:
                return number
    return None


def reason_of(rows: list[Row]) -> str:
    alarms = Alarms(Settings())
    found = [
        r.reason for n, row in enumerate(rows, 1) for r in alarms.update(n, row) if r.alarm == "no_signal"
    ]
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize("prompts", [1, 2, 16])
@pytest.mark.parametrize("reward", [0.0, 1.0, 0.1])
def test_a_constant_reward_ends_the_run_at_the_twentieth_step_whatever_the_batch(
    prompts: int, reward: float
) -> None:
    rows = [step(of=prompts, reward__mean=reward)] * 40
    assert stopped_at(rows) == 20
    assert stopped_at(rows[:19]) is None


def test_so_do_advantages_of_zero_with_the_gradient_of_a_kl() -> None:
    """GRPO trains on such steps; what it then learns is not from the rewards."""
    assert stopped_at([step(grad_norm=0.0)] * 20) == 20
    assert stopped_at([step(grad_norm=1e-3)] * 20) == 20


def test_a_loss_of_the_users_own_may_learn_without_contrast_but_not_without_a_gradient() -> None:
    assert stopped_at([step(grad_norm=1e-3)] * 40, needs_contrast=False) is None
    assert stopped_at([step(grad_norm=0.0)] * 40, needs_contrast=False) == 20
    assert stopped_at([step()] * 40, needs_contrast=False) == 20


def test_rewards_that_differ_without_a_gradient_are_no_signal() -> None:
    rows = [step(4, grad_norm=0.0, reward__mean=0.1)] * 20
    assert stopped_at(rows) == 20
    assert "rewards differ for 80 of 320 prompts, but there was no gradient" in reason_of(rows)


def test_rewards_without_a_value_are_no_signal() -> None:
    rows = [{"pairs/formed": 0, "pairs/skipped": 2, "reward/missing": 1.0}] * 20
    assert stopped_at(rows) == 20
    assert "hardly a rollout has a reward" in reason_of(rows)


@pytest.mark.parametrize("first", [1, 12, 20])
def test_rewards_that_are_rare_at_first_are_waited_for(first: int) -> None:
    """One group in the first window of a sparse reward, and then one in each that follows."""
    rows = [step()] * (first - 1) + ([GOOD] + [step()] * 19) * 5
    assert stopped_at(rows) is None


def test_small_batches_get_more_steps_once_the_rewards_have_differed() -> None:
    """Of one prompt a step, none may show a contrast in 20 steps of a policy that is nearly always right."""
    one = step(of=1, reward__mean=1.0)
    assert stopped_at([GOOD] + [one] * 63) is None
    assert stopped_at([GOOD] + [one] * 64) == 65
    assert stopped_at([GOOD] + [step(reward__mean=1.0)] * 20) == 21
    some = [step(of=1, reward__mean=float(i % 3 == 0)) for i in range(64)]
    assert stopped_at(some[:63]) is None
    assert stopped_at(some) == 64


def test_steps_that_are_not_finite_or_say_nothing_do_not_count() -> None:
    assert stopped_at([step(1, grad_norm=math.nan)] * 40) is None  # optimizer.max_skipped_steps is for these
    assert stopped_at([{"reward/mean": 0.0}] * 40) is None
    assert stopped_at([step(1)] * 40) is None  # as a loop of the user's own may log


def test_window_and_action_are_settings() -> None:
    assert stopped_at([step()] * 10, window=5) == 5
    assert stopped_at([step()] * 40, action=AlarmAction.warn) is None
    assert stopped_at([step()] * 40, action=None) is None


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([step()] * 20, "every reward was 0; read answers in rollouts.jsonl"),
        ([step(reward__mean=0.7)] * 20, "every reward was 0.7; read"),
        (
            [step(rollout__cut_off=1.0)] * 20,
            "100% of the answers end at the token limit; raise rollout.max_new",
        ),
        (
            [step(reward__mean=i / 32) for i in range(20)],
            "all answers to a prompt got the same reward; raise",
        ),
    ],
)
def test_the_reason_tells_what_the_rewards_were_and_what_to_do(rows: list[Row], expected: str) -> None:
    reason = reason_of(rows)
    assert reason.startswith("nothing was learnt in 20 steps: ") and expected in reason
    assert "alarms.no_signal.action=warn" in reason


def test_the_run_ends_in_order_and_says_so(tmp_path: Path) -> None:
    config = RunConfig()
    config.run.dir, config.run.name = str(tmp_path), "a"
    with pytest.raises(StoppedByAlarm, match="every reward was 0"), Recorder(config) as recorder:
        for version in range(1, 21):
            if (stop := recorder.step(version, step()).stop) is not None:
                raise StoppedByAlarm(stop)
    summary = json.loads((tmp_path / "a" / "summary.json").read_text())
    assert (summary["status"], summary["steps"]) == ("stopped", 20)
    assert [row["alarm"] for row in summary["alarms"]] == ["no_signal"]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([step()] * 5, ["no step of the run taught anything: every reward was 0; read answers"]),
        ([GOOD, *[step()] * 4], []),  # it did learn
        ([step()] * 4 + [GOOD], []),
        ([step()] * 20, ["nothing was learnt in 20 steps"]),  # told already
    ],
)
def test_a_run_too_short_for_the_window_is_warned_of_at_its_end(
    rows: list[Row], expected: list[str], tmp_path: Path
) -> None:
    config = RunConfig()
    config.run.dir, config.run.name = str(tmp_path), "a"
    with Recorder(config) as recorder:
        for version, row in enumerate(rows, 1):
            recorder.step(version, row)
    summary = json.loads((tmp_path / "a" / "summary.json").read_text())
    log = tmp_path / "a" / "alarms.jsonl"
    logged = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    reasons = [row["reason"] for row in summary["alarms"] if row["alarm"] == "no_signal"]
    assert logged == summary["alarms"] and summary["status"] == "completed"
    assert len(reasons) == len(expected)
    assert all(reason.startswith(text) for reason, text in zip(reasons, expected, strict=True))


def test_a_recorder_that_is_taken_back_counts_on_from_there(tmp_path: Path) -> None:
    """As to a checkpoint in the middle of the window."""
    config = RunConfig()
    config.run.dir, config.run.name = str(tmp_path), "a"
    with Recorder(config) as recorder:
        for version in range(1, 13):
            recorder.step(version, step())
        state, lengths = json.loads(json.dumps(recorder.state())), recorder.lengths()
        for version in range(13, 18):
            recorder.step(version, GOOD)
        recorder.rewind(12, lengths, state)
        stops = [recorder.step(version, step()).stop is not None for version in range(13, 21)]
    assert stops == [False] * 7 + [True]
