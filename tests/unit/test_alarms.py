import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlstack.config.alarms import AlarmAction
from rlstack.config.schema import Alarms as Settings
from rlstack.telemetry.alarms import Alarms, Raised, Series


def settings(*, window: int = 4, **changes: Any) -> Settings:
    """Windows of `window` steps; `changes` are `alarm__setting=value`."""
    made = Settings()
    for alarm in (made.length_collapse, made.entropy_collapse, made.divergence):
        alarm.window = window
    for path, value in changes.items():
        alarm_name, _, key = path.partition("__")
        assert hasattr(getattr(made, alarm_name), key)
        setattr(getattr(made, alarm_name), key, value)
    return made


def watch(alarms: Alarms, rows: Iterable[Mapping[str, float]], *, first_step: int = 1) -> list[Raised]:
    return [raised for step, row in enumerate(rows, first_step) for raised in alarms.update(step, row)]


def rows(name: str, values: Iterable[float]) -> list[dict[str, float]]:
    return [{name: value} for value in values]


def raised_by(name: str, values: Iterable[float], **changes: Any) -> list[tuple[int, str]]:
    return [(raised.step, raised.alarm) for raised in watch(Alarms(settings(**changes)), rows(name, values))]


def test_a_collapse_of_length_is_raised_when_the_windows_mean_is_below_its_share_of_the_first() -> None:
    # First window: 100. From step 11 on 20 tokens: means of 80, 60, 40 at steps 11, 12, 13.
    lengths = [100.0] * 10 + [20.0] * 3
    (raised,) = watch(Alarms(settings()), rows("rollout/length_mean", lengths))
    assert (raised.step, raised.alarm, raised.action) == (13, "length_collapse", AlarmAction.warn)
    assert raised.lr_factor == 1.0
    assert raised.reason == "rollout/length_mean is 40 over 4 steps, in tokens: below 0.5 of the start's 100"


def test_a_slow_decline_of_length_to_more_than_its_share_is_none() -> None:
    lengths = [100 - 0.9 * step for step in range(50)]
    assert raised_by("rollout/length_mean", lengths) == []


def test_a_short_dip_is_no_collapse() -> None:
    assert raised_by("rollout/length_mean", [100.0] * 8 + [1.0] + [100.0] * 8) == []


def test_a_collapse_of_entropy_is_below_a_share_of_the_first_window_or_below_the_floor() -> None:
    entropies = [0.8] * 4 + [0.1] * 4 + [0.05] * 4
    name = "policy/entropy"
    assert raised_by(name, entropies) == [(10, "entropy_collapse")]  # 0.075 is less than a tenth
    with_floor = raised_by(name, entropies, entropy_collapse__floor=0.3)
    assert with_floor == [(7, "entropy_collapse"), (11, "entropy_collapse")]


@pytest.mark.parametrize("name", ["loss/total", "grad_norm"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_is_divergence_at_once(name: str, value: float) -> None:
    assert raised_by(name, [1.0, value]) == [(2, "divergence")]


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        ("grad_norm", "max_grad_norm"),
        ("mismatch/logprob_abs_mean", "max_mismatch"),
        ("drift/logprob_abs_mean", "max_drift"),
    ],
)
def test_a_limit_is_passed_in_one_step_or_switched_off(name: str, setting: str) -> None:
    values = [0.4, 0.5, 0.6]
    assert raised_by(name, values, **{f"divergence__{setting}": 0.5}) == [(3, "divergence")]
    assert raised_by(name, values, **{f"divergence__{setting}": None}) == []


def test_a_reward_far_below_its_best_window_is_divergence() -> None:
    rewards = [0.2] * 4 + [0.8] * 5 + [0.41] * 4
    (raised,) = watch(Alarms(settings()), rows("reward/mean", rewards))
    assert raised.step == 13
    assert raised.reason == "reward/mean is 0.41 over 4 steps, more than 0.3 below the highest such mean, 0.8"
    assert raised_by("reward/mean", rewards, divergence__reward_drop=None) == []
    assert raised_by("reward/mean", [-0.2] * 4 + [-0.7] * 4) == [(7, "divergence")]


def test_a_raised_alarm_is_silent_for_a_window_and_then_raised_again_while_it_lasts() -> None:
    lengths = [100.0] * 4 + [10.0] * 10 + [100.0] * 10
    assert [step for step, _ in raised_by("rollout/length_mean", lengths)] == [7, 11, 15]


def test_what_to_do_is_the_alarms_own_setting() -> None:
    made = settings(
        length_collapse__action=AlarmAction.lower_lr,
        length_collapse__lr_factor=0.25,
        entropy_collapse__action=AlarmAction.stop,
        divergence__action=None,
    )
    good = {"rollout/length_mean": 50.0, "policy/entropy": 1.0, "reward/mean": 1.0}
    bad = {"rollout/length_mean": 0.0, "policy/entropy": 0.0, "reward/mean": 0.0, "loss/total": math.nan}
    raised = watch(Alarms(made), [good] * 4 + [bad] * 4)
    assert [(each.step, each.alarm, each.action, each.lr_factor) for each in raised] == [
        (7, "length_collapse", AlarmAction.lower_lr, 0.25),
        (8, "entropy_collapse", AlarmAction.stop, 1.0),
    ]


def test_steps_without_the_metric_or_with_one_that_is_not_finite_do_not_count() -> None:
    series = Series(2)
    for value in (1.0, None, math.nan, 3.0):
        series.add(value)
    assert (series.mean, series.first_mean, series.highest_mean) == (2.0, 2.0, 2.0)


step_metrics = st.fixed_dictionaries(
    {},
    optional={
        "rollout/length_mean": st.floats(0, 100),
        "policy/entropy": st.floats(0, 2) | st.just(math.nan),
        "reward/mean": st.floats(-1, 1),
        "loss/total": st.floats(0, 1) | st.just(math.inf),
        "grad_norm": st.floats(0, 2),
        "pairs/formed": st.integers(0, 2),
        "reward/missing": st.floats(0, 1),
        "rollout/cut_off": st.floats(0, 1),
    },
)


@given(st.lists(step_metrics, max_size=30), st.integers(0, 30))
def test_alarms_that_restore_a_state_go_on_as_the_first_ones(
    series: list[dict[str, float]], cut: int
) -> None:
    made = settings(window=3, divergence__max_grad_norm=1.5)
    for alarm in (made.no_signal, made.reward_errors, made.cut_off):
        alarm.window, alarm.action = 2, AlarmAction.warn
    whole = watch(Alarms(made), series)
    first, second = Alarms(made), Alarms(made)
    before = watch(first, series[:cut])
    second.restore(json.loads(json.dumps(first.state(), allow_nan=False)))
    assert before + watch(second, series[cut:], first_step=cut + 1) == whole


def test_a_window_of_another_size_starts_afresh() -> None:
    old, new = Alarms(settings(window=4)), Alarms(settings(window=2))
    lengths = rows("rollout/length_mean", [100.0] * 8)
    watch(old, lengths)
    new.restore(old.state())
    assert watch(new, rows("rollout/length_mean", [10.0] * 5), first_step=9) == []


def test_a_state_of_other_alarms_is_gone_on_from_as_far_as_it_goes() -> None:
    """As of a checkpoint that knows of fewer alarms."""
    alarms = Alarms(settings())
    watch(alarms, rows("rollout/length_mean", [100.0] * 4))
    state = alarms.state()
    del state["drought"], state["series"]["reward/missing"], state["series"]["rollout/cut_off"]
    restored = Alarms(settings())
    restored.restore(state)
    (raised,) = watch(restored, rows("rollout/length_mean", [10.0] * 4), first_step=5)
    assert raised.alarm == "length_collapse"


@pytest.mark.parametrize(
    ("alarm", "name", "bound"),
    [("reward_errors", "reward/missing", 0.5), ("cut_off", "rollout/cut_off", 0.3)],
)
def test_a_share_above_its_bound_over_a_window_is_raised(alarm: str, name: str, bound: float) -> None:
    def steps(values: list[float]) -> list[int]:
        return [r.step for r in watch(Alarms(Settings()), rows(name, values)) if r.alarm == alarm]

    assert steps([1.0] * 9) == []
    assert steps([1.0] * 10) == [10]
    assert steps([bound] * 30) == []
    assert steps([0.0] * 20 + [1.0] * 7) == [20 + int(10 * bound) + 1]


def test_failing_rewards_stop_the_run_and_cut_off_answers_warn() -> None:
    raised = watch(Alarms(Settings()), [{"reward/missing": 1.0, "rollout/cut_off": 1.0}] * 10)
    assert {each.alarm: each.action for each in raised} == {
        "reward_errors": AlarmAction.stop,
        "cut_off": AlarmAction.warn,
    }
    reasons = {each.alarm: each.reason for each in raised}
    assert "rollouts.jsonl" in reasons["reward_errors"] and "timeout_s" in reasons["reward_errors"]
    assert "rollout.max_new_tokens" in reasons["cut_off"] and "objective.cut_off" in reasons["cut_off"]
