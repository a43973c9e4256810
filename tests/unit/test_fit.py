"""Parts that are known, runs made of them by hand, and what the fit finds of the parts again."""

import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlstack.config.schema import RunConfig
from rlstack.tuning.calibration import calibration_runs
from rlstack.tuning.cost_model import predict
from rlstack.tuning.fit import MAX_SLOWDOWN, calibrate
from rlstack.tuning.least_squares import least_squares
from rlstack.tuning.measure import MeasuredRun, quantiles
from rlstack.tuning.parts import Controller, Generation, Layout, Parts, Scoring, Sharing, Sync, Training
from rlstack.tuning.setup import Setup

TRAINING = Training(s_per_token=5e-5, fixed_s=0.05, reference_s_per_token=2e-5, reference_fixed_s=0.01)
GENERATION = Generation(decode_s=2e-3, decode_s_per_sequence=8e-5)
SCORING = Scoring(s_per_rollout=7e-4, fixed_s=0.005)
CONTROLLER = Controller(fixed_s=0.004, s_per_rollout=2e-5)
SYNC = Sync(num_bytes=1000.0, bytes_per_s=None, latency_s=0.02, pause_s=0.01)


def run_in_turn(*, prompts, noise=0.0, steps=40, layout=Layout()):  # noqa: B008
    """What a run in turn would leave if its parts cost exactly this, but for `noise`, a share of each."""
    chance = random.Random(prompts)
    setup = Setup(
        sync_interval=4,
        reference_follows=True,
        prompts_per_step=prompts,
        num_steps=steps,
        overlap=False,
        layout=layout,
    )
    rows, lengths = [], []
    for step in range(steps):
        of_step = [chance.randint(8, 50) for _ in range(setup.rollouts_per_step)]
        trained = prompts * chance.randint(50, 110)
        generation_s = max(of_step) * GENERATION.decode_s
        generation_s += sum(of_step) * GENERATION.decode_s_per_sequence
        train_s = TRAINING.seconds(trained, layout)
        if step % 4:
            train_s += TRAINING.reference_seconds(trained, layout)
        times = {
            "generate_wait": generation_s,
            "train": train_s,
            "reward": SCORING.fixed_s + len(of_step) * SCORING.s_per_rollout,
            "sync": SYNC.seconds if step % 4 == 3 else 0.0,
            "evaluate": 0.0,
        }
        row = {f"time/{name}_s": spent * chance.gauss(1, noise) for name, spent in times.items()}
        row["time/step_s"] = sum(row.values()) + CONTROLLER.seconds(len(of_step))
        if step % 4 == 3:
            row |= {"sync/bytes": 1000, "sync/land_s": SYNC.pause_s}
        rows.append(row | {"tokens/trained": trained, "rollout/prompt_length_mean": 19.0})
        lengths.append(of_step)
    return MeasuredRun(
        setup=setup,
        rows=rows,
        lengths=lengths,
        num_cores=2,
        reward_workers=1,
        evaluation_s=2.0,
        start_up_s=10.0,
    )


def overlapped_run(parts):
    """A run whose steps take what the model says."""
    setup = Setup(sync_interval=8, reference_follows=True, num_steps=40)
    source = run_in_turn(prompts=16)
    step_s = predict(replace(parts, workload=source.workload), setup).step_s
    rows = [{**row, "time/step_s": step_s, "time/evaluate_s": 0.0} for row in source.rows]
    return replace(source, setup=setup, rows=rows)


def test_parts_without_noise_are_found_again():
    found = calibrate([run_in_turn(prompts=16), run_in_turn(prompts=4)])
    parts = found.parts
    for part, truth in (
        (parts.generation, GENERATION),
        (parts.training, TRAINING),
        (parts.scoring, SCORING),
        (parts.controller, CONTROLLER),
    ):
        for name in type(truth).__dataclass_fields__:
            assert getattr(part, name) == pytest.approx(getattr(truth, name), rel=1e-6, abs=1e-9), name
    assert parts.sync.latency_s == pytest.approx(SYNC.latency_s)
    assert (parts.sync.num_bytes, parts.sync.pause_s) == (SYNC.num_bytes, SYNC.pause_s)
    assert (parts.evaluation_s, parts.start_up_s, parts.sharing) == (2.0, 10.0, Sharing(cores=2))
    assert found.notes == []


def test_parts_with_noise_are_found_within_their_errors():
    found = calibrate([run_in_turn(prompts=16, noise=0.05), run_in_turn(prompts=4, noise=0.05)])
    for name, truth in (
        ("generation.decode_s_per_sequence", GENERATION.decode_s_per_sequence),
        ("training.fixed_s", TRAINING.fixed_s),
        ("training.s_per_token", TRAINING.s_per_token),
        ("scoring.s_per_rollout", SCORING.s_per_rollout),
    ):
        part, field = name.split(".")
        assert found.errors[name] > 0
        assert abs(getattr(getattr(found.parts, part), field) - truth) < 4 * found.errors[name], name


def test_a_disturbed_step_does_not_count():
    runs = [run_in_turn(prompts=16, noise=0.02), run_in_turn(prompts=4, noise=0.02)]
    rows = list(runs[0].rows)
    rows[20] = rows[20] | {"time/train_s": 3.0, "time/step_s": 4.0}
    found = calibrate([replace(runs[0], rows=rows), runs[1]]).parts.training
    tokens, one = 1300.0, Layout()
    assert found.seconds(tokens, one) == pytest.approx(TRAINING.seconds(tokens, one), rel=0.03)


def test_the_layout_of_the_runs_is_taken_out_of_the_training_part():
    pipelined = Layout(pipeline_parallel=2, micro_batch_tokens=400)
    found = calibrate([run_in_turn(prompts=p, layout=pipelined) for p in (16, 4)])
    assert found.parts.training.s_per_token == pytest.approx(TRAINING.s_per_token, rel=1e-6)


def test_a_reference_that_is_always_passed_through_is_said_to_be_unseen():
    runs = [run_in_turn(prompts=p) for p in (16, 4)]
    always = [replace(run, setup=replace(run.setup, reference_follows=False)) for run in runs]
    rows = [[row for i, row in enumerate(run.rows) if i % 4] for run in always]
    lengths = [[each for i, each in enumerate(run.lengths) if i % 4] for run in always]
    found = calibrate(
        [replace(run, rows=r, lengths=n) for run, r, n in zip(always, rows, lengths, strict=True)]
    )
    assert found.parts.training.fixed_s == pytest.approx(
        TRAINING.fixed_s + TRAINING.reference_fixed_s, rel=1e-6
    )
    assert "training.reference_fixed_s: nothing of it could be seen" in found.notes


@settings(max_examples=5, deadline=None)
@given(st.floats(0.05, 1.0))
def test_the_slowdown_of_an_overlapped_run_is_found_again(slowdown):
    parts = Parts(
        workload=run_in_turn(prompts=16).workload,
        generation=GENERATION,
        training=TRAINING,
        scoring=SCORING,
        sync=SYNC,
        controller=CONTROLLER,
        sharing=Sharing(cores=2, slowdown=slowdown),
    )
    found = calibrate([run_in_turn(prompts=16), run_in_turn(prompts=4), overlapped_run(parts)])
    assert found.parts.sharing.slowdown == pytest.approx(slowdown, abs=5e-3)


def test_a_slowdown_that_explains_nothing_is_said():
    slow = overlapped_run(calibrate([run_in_turn(prompts=16), run_in_turn(prompts=4)]).parts)
    slow = replace(slow, rows=[row | {"time/step_s": 60.0} for row in slow.rows])
    found = calibrate([run_in_turn(prompts=16), run_in_turn(prompts=4), slow])
    assert found.parts.sharing.slowdown == MAX_SLOWDOWN
    assert any("slowdown" in note for note in found.notes)


def test_without_a_run_in_turn_nothing_can_be_told():
    with pytest.raises(ValueError, match=r"rollout\.overlap=false"):
        calibrate([replace(run_in_turn(prompts=4), setup=Setup(sync_interval=1))])


@given(st.lists(st.floats(0, 10), min_size=2, max_size=3), st.integers(0, 1000))
def test_exact_data_give_the_coefficients_that_made_them(coefficients, seed):
    columns = np.random.default_rng(seed).normal(size=(20, len(coefficients)))
    fit = least_squares(
        {str(i): columns[:, i].tolist() for i in range(len(coefficients))},
        (columns @ np.array(coefficients)).tolist(),
    )
    assert list(fit.values.values()) == pytest.approx(coefficients, abs=1e-6)


def test_what_would_be_negative_is_zero():
    fit = least_squares({"a": [1, 1, 1], "b": [1, 2, 3]}, [3, 2, 1])
    assert fit.values == {"a": pytest.approx(2.0), "b": 0.0}


def test_columns_that_move_together_are_not_told_apart():
    chance = np.random.default_rng(0)
    a = chance.normal(10, 1, size=50)
    columns = {"a": a.tolist(), "b": (a + chance.normal(0, 0.01, size=50)).tolist()}
    noisy = 2 * a + chance.normal(0, 0.001, size=50)
    assert least_squares(columns, (noisy + np.array(columns["b"])).tolist()).confounded == (("a", "b"),)


@given(st.lists(st.floats(0, 100), min_size=1, max_size=40), st.integers(1, 20))
def test_quantiles_are_values_in_order(values, count):
    found = quantiles(values, count)
    assert len(found) == count and list(found) == sorted(found) and set(found) <= set(values)


def test_calibration_runs_are_in_turn_at_several_batches_and_one_with_overlap():
    runs = calibration_runs(RunConfig())
    in_turn = [run for run in runs if "rollout.overlap=false" in run.settings]
    prompts = [each for run in in_turn for each in run.settings if each.startswith("batch.prompts_per_step")]
    assert prompts == [f"batch.prompts_per_step={count}" for count in (16, 4, 32)]  # 32 x 8 fill 256 places
    assert [run.name for run in runs if run not in in_turn] == ["overlapped"]


def test_where_a_step_fills_the_engines_no_larger_batch_is_run():
    config = RunConfig()
    config.rollout.max_num_seqs = 64
    assert "in-turn-large" not in [run.name for run in calibration_runs(config)]


def test_runs_that_trained_on_nothing_tell_nothing_of_training():
    run = run_in_turn(prompts=4)
    untrained = [row | {"tokens/trained": 0.0} for row in run.rows]
    with pytest.raises(ValueError, match="all rewards tied"):
        calibrate([replace(run, rows=untrained)])
