"""The cost model against closed forms, and what must hold whatever the parts cost."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlstack.orchestration.schedule import Schedule
from rlstack.tuning.cost_model import predict
from rlstack.tuning.loop_jobs import LoopJobs, calls
from rlstack.tuning.parts import (
    Controller,
    Generation,
    Layout,
    Parts,
    Scoring,
    Sharing,
    Sync,
    Training,
    Workload,
)
from rlstack.tuning.prediction import BUBBLE, POLICY, REWARDS, ROLLOUTS, SYNC
from rlstack.tuning.setup import Setup, steady_steps

# Four prompts of two rollouts, each of ten tokens: 8 sequences for 10 decoding steps of 0.1 + 8 * 0.05 s.
PARTS = Parts(
    workload=Workload(prompt_tokens=5, answer_tokens=(10,), trained_tokens_per_prompt=25),
    generation=Generation(decode_s=0.1, decode_s_per_sequence=0.05),
    training=Training(s_per_token=0.01, fixed_s=1.0),
    scoring=Scoring(s_per_rollout=0.25),
    sync=Sync(num_bytes=100, bytes_per_s=200, latency_s=0.25, pause_s=0.25),
    controller=Controller(fixed_s=0.5),
)
GENERATE_S, REWARD_S, TRAIN_S, SYNC_S, CONTROL_S = 5.0, 2.0, 2.0, 1.0, 0.5

seconds = st.floats(1e-4, 1.0)
all_parts = st.builds(
    Parts,
    workload=st.builds(
        Workload,
        prompt_tokens=st.just(5.0),
        answer_tokens=st.lists(st.integers(1, 30), min_size=1, max_size=5).map(tuple),
        trained_tokens_per_prompt=st.floats(0, 100),
    ),
    generation=st.builds(Generation, decode_s=seconds, decode_s_per_sequence=seconds),
    training=st.builds(Training, s_per_token=seconds, fixed_s=seconds, reference_s_per_token=seconds),
    scoring=st.builds(Scoring, s_per_rollout=seconds),
    sync=st.builds(Sync, num_bytes=st.just(1.0), bytes_per_s=st.none(), latency_s=seconds, pause_s=seconds),
    controller=st.builds(Controller, fixed_s=seconds),
    sharing=st.builds(Sharing, cores=st.sampled_from([None, 2.0, 4.0]), slowdown=st.sampled_from([0.0, 0.2])),
)
setups = st.builds(
    Setup,
    sync_interval=st.sampled_from([None, 1, 2, 3, 5]),
    lag=st.integers(0, 2),
    prompts_per_step=st.integers(1, 6),
    n=st.integers(1, 3),
    engines=st.integers(1, 3),
    max_num_seqs=st.integers(1, 20),
    max_steps_ahead=st.integers(4, 16),
    num_steps=st.integers(1, 20),
    overlap=st.booleans(),
    evaluate_every=st.sampled_from([None, 6]),
)


def setup(sync_interval, **choices):
    return Setup(sync_interval=sync_interval, **{"prompts_per_step": 4, "n": 2, "num_steps": 40} | choices)


def test_in_turn_a_step_is_the_sum_of_its_parts():
    online = predict(PARTS, setup(1, overlap=False, needs_reference=False))
    assert online.step_s == pytest.approx(GENERATE_S + REWARD_S + CONTROL_S + TRAIN_S + SYNC_S)
    assert online.wall_s == pytest.approx(40 * online.step_s)
    semi = predict(PARTS, setup(10, overlap=False, needs_reference=False))
    assert semi.step_s == pytest.approx(GENERATE_S + REWARD_S + CONTROL_S + TRAIN_S + SYNC_S / 10)


def test_offline_with_overlap_a_step_is_its_slowest_role():
    choices = setup(None, max_num_seqs=8, needs_reference=False)
    # The last groups of a call, scored after it, hold the next call up only where few steps wait.
    assert predict(PARTS, choices).step_s == pytest.approx(GENERATE_S, rel=0.01)
    slow = replace(PARTS, scoring=Scoring(s_per_rollout=1.5))
    assert predict(slow, choices).step_s == pytest.approx(12.0, rel=0.01)
    slow = replace(PARTS, training=Training(s_per_token=0.01, fixed_s=10.0))
    assert predict(slow, choices).step_s == pytest.approx(11.0 + CONTROL_S, rel=0.01)


def test_offline_on_one_shared_core_a_step_is_the_sum_again():
    one_core = replace(PARTS, sharing=Sharing(cores=1))
    found = predict(one_core, setup(None, max_num_seqs=8, needs_reference=False, num_steps=200))
    assert found.step_s == pytest.approx(GENERATE_S + REWARD_S + CONTROL_S + TRAIN_S, rel=0.05)


def test_an_interval_with_overlap_by_hand():
    """s = 2, eight places: two steps one after the other in one call, in portions of one group each."""
    parts = replace(PARTS, generation=Generation(decode_s=0.5, decode_s_per_sequence=0.0))
    found = predict(parts, setup(2, max_num_seqs=8, needs_reference=False))
    # Step 0 is sampled at 5 s and step 1 at 10 s; scored at 7 s and 12 s; step 1 is then trained on.
    assert found.step_s == pytest.approx((2 * GENERATE_S + REWARD_S + CONTROL_S + TRAIN_S + SYNC_S) / 2)


def test_in_shifts_an_intervals_rollouts_come_before_its_steps():
    """Scored beside the sampling, and but for the last step's beside the training."""
    choices = setup(4, overlap=False, in_shifts=True, max_num_seqs=8, needs_reference=False)
    assert predict(PARTS, choices).step_s == pytest.approx(GENERATE_S + CONTROL_S + TRAIN_S + SYNC_S / 4)
    # With room for all sequences of an interval, one batch of 32 takes its 10 decoding steps.
    wide = replace(choices, max_num_seqs=32)
    generate_s = 10 * (0.1 + 32 * 0.05) / 4
    assert predict(PARTS, wide).step_s < generate_s + REWARD_S + CONTROL_S + TRAIN_S + SYNC_S / 4
    assert predict(PARTS, wide).step_s >= generate_s + CONTROL_S + TRAIN_S + SYNC_S / 4


def test_a_lagging_generator_is_stopped_by_landing_alone():
    slow_to_send = replace(PARTS, sync=Sync(num_bytes=0, bytes_per_s=None, latency_s=4.0, pause_s=0.25))
    lagging = predict(slow_to_send, setup(1, lag=1, needs_reference=False))
    assert lagging.sync_pause_s == pytest.approx(40 * 0.25)
    assert lagging.sync_s == pytest.approx(40 * 4.0)
    standing_still = predict(slow_to_send, setup(1, needs_reference=False))
    assert standing_still.sync_pause_s == pytest.approx(40 * 4.25)
    assert lagging.step_s < standing_still.step_s


def test_in_turn_a_lagging_generator_stands_still_all_the_same():
    in_turn = predict(PARTS, setup(1, lag=1, overlap=False, needs_reference=False))
    assert in_turn.sync_pause_s == pytest.approx(40 * SYNC_S)
    # Of the last version nothing is left to sample but of all others one step is, before the sync.
    assert in_turn.wall_s == pytest.approx(40 * (GENERATE_S + REWARD_S + CONTROL_S + TRAIN_S + SYNC_S))


@given(st.sampled_from([1, 2, 4]), st.integers(1, 3), st.integers(1, 6))
def test_a_lagging_engine_lands_a_version_after_the_last_rollouts_of_the_one_before(s, lag, limit):
    choices = setup(s, lag=lag, max_steps_ahead=limit, num_steps=12, needs_reference=False)
    of_engine = [job.reason for job in LoopJobs(PARTS, choices).jobs if job.role == "engine 0"]
    per_step = 4  # prompts, each a portion of its own
    landed = [i for i, reason in enumerate(of_engine) if reason == SYNC]
    written = [sum(reason == ROLLOUTS for reason in of_engine[:place]) // per_step for place in landed]
    assert written == [min(version + lag, 12) for version in range(s, 13, s)]


def test_the_reference_is_passed_through_where_it_is_not_the_policy_itself():
    training = Training(s_per_token=0.0, fixed_s=1.0, reference_s_per_token=0.01)  # 1 s a step
    parts = replace(PARTS, training=training)
    in_turn = setup(4, overlap=False, reference_follows=True)
    without = predict(parts, replace(in_turn, needs_reference=False)).step_s
    assert predict(parts, in_turn).step_s == pytest.approx(without + 0.75)
    assert predict(parts, replace(in_turn, reference_follows=False)).step_s == pytest.approx(without + 1)
    halved = replace(in_turn, reference_follows=False, reference_interval=2)
    assert predict(parts, halved).step_s == pytest.approx(without + 0.5)


def test_a_layout_divides_the_work_and_pays_for_its_bubble():
    training = Training(s_per_token=0.01, fixed_s=1.0)
    assert training.seconds(800, Layout()) == pytest.approx(9.0)
    assert training.seconds(800, Layout(data_parallel=2)) == pytest.approx(5.0)
    # One micro-batch: the stages take turns, and nothing is gained.
    assert training.seconds(800, Layout(pipeline_parallel=2)) == pytest.approx(9.0)
    of_four = Layout(pipeline_parallel=2, micro_batch_tokens=200)
    assert of_four.bubble_share(800) == pytest.approx(1 / 5)
    assert training.seconds(800, of_four) == pytest.approx(1 + 8 / 2 * 5 / 4)


def test_the_bubble_is_waiting_not_work():
    times = predict(PARTS, setup(1, layout=Layout(pipeline_parallel=2), needs_reference=False)).roles
    assert times[POLICY].busy_s == pytest.approx(times[POLICY].waiting_s[BUBBLE]) == pytest.approx(40.0)


def test_who_waits_for_whom():
    times = predict(PARTS, setup(1, overlap=False, needs_reference=False)).roles
    assert times[POLICY].waiting_s[ROLLOUTS] == pytest.approx(40 * GENERATE_S)
    assert times[REWARDS].waiting_s[ROLLOUTS] == pytest.approx(40 * GENERATE_S)
    assert times["engine 0"].busy_share == pytest.approx(GENERATE_S / 10.5)


def test_engines_of_their_own_hardware_are_alike():
    """One stands for all: the same time as with all of them on cores that are plenty."""
    choices = setup(5, engines=2, needs_reference=False)
    plenty = replace(PARTS, sharing=Sharing(cores=100))
    assert predict(PARTS, choices).wall_s == pytest.approx(predict(plenty, choices).wall_s)


@settings(deadline=None)
@given(all_parts, setups)
def test_what_every_prediction_keeps(parts, choices):
    found = predict(parts, choices)
    assert found.wall_s > 0 and found.step_s > 0
    for time in found.roles.values():
        assert time.wall_s == pytest.approx(found.wall_s, abs=1e-6)
        assert time.idle_s > -1e-6
    training = parts.training.seconds(
        choices.prompts_per_step * parts.workload.trained_tokens_per_prompt, choices.layout
    )
    assert found.wall_s >= choices.num_steps * (training + parts.controller.fixed_s) - 1e-6
    assert 0 <= found.sync_share <= 1
    assert found == predict(parts, choices)


@settings(deadline=None)
@given(all_parts, setups)
def test_taking_turns_is_never_faster_on_hardware_of_ones_own(parts, choices):
    parts = replace(parts, sharing=Sharing())
    # A call of one step at a time in both: otherwise its last rollouts may run beside the next step's.
    overlapped, in_turn = (
        replace(choices, overlap=overlap, sync_interval=1, lag=0) for overlap in (True, False)
    )
    assert predict(parts, overlapped).wall_s <= predict(parts, in_turn).wall_s + 1e-6


@settings(deadline=None)
@given(all_parts, setups, st.sampled_from(["training", "scoring", "sync", "controller", "generation"]))
def test_a_part_that_costs_more_never_makes_the_run_shorter(parts, choices, name):
    parts = replace(parts, sharing=Sharing())
    dearer = {
        "training": replace(parts.training, fixed_s=parts.training.fixed_s + 1),
        "scoring": replace(parts.scoring, s_per_rollout=parts.scoring.s_per_rollout * 2),
        "sync": replace(parts.sync, latency_s=parts.sync.latency_s + 1),
        "controller": replace(parts.controller, fixed_s=parts.controller.fixed_s + 1),
        "generation": replace(parts.generation, decode_s=parts.generation.decode_s * 2),
    }[name]
    assert predict(replace(parts, **{name: dearer}), choices).wall_s >= predict(parts, choices).wall_s - 1e-6


@given(st.sampled_from([None, 1, 3, 10, 40]), st.integers(0, 2), st.integers(1, 60), st.integers(3, 16))
def test_calls_cover_each_step_once_and_never_cross_a_version(sync_interval, lag, num_steps, limit):
    schedule = Schedule(num_steps=num_steps, sync_interval=sync_interval, lag=lag)
    found = calls(schedule, limit)
    assert [step for call in found for step in call] == list(range(num_steps))
    for call in found:
        assert 1 <= len(call) <= limit
        assert len({schedule.version_for(step) for step in call}) == 1


@pytest.mark.parametrize(
    ("sync_interval", "num_steps", "expected"),
    [(10, 120, range(10, 120)), (10, 45, range(10, 40)), (50, 60, range(15, 60)), (None, 40, range(10, 40))],
)
def test_the_steady_state_is_of_whole_intervals(sync_interval, num_steps, expected):
    assert steady_steps(Setup(sync_interval=sync_interval, num_steps=num_steps)) == expected
