"""A finished run's folder as numbers."""

import json

import pytest

from rlstack.config.load import dump_config
from rlstack.config.schema import RunConfig
from rlstack.errors import ConfigError
from rlstack.tuning.measure import measured_run, seconds


def step_row(step, *, step_s, evaluate_s=0.0):
    phases = {"generate_wait": 0.2, "reward": 0.1, "train": 0.3, "sync": 0.05, "evaluate": evaluate_s}
    return {
        "step": step,
        "rollout/prompt_length_mean": 19.0,
        "tokens/trained": 160.0 * step,
        "time/step_s": step_s,
        **{f"time/{name}_s": spent for name, spent in phases.items()},
    }


@pytest.fixture
def folder(tmp_path):
    """Three steps of two prompts with two rollouts each; an evaluation within the last step, one after it."""
    config = RunConfig()
    config.policy.model = str(tmp_path)
    config.schedule.num_steps, config.schedule.sync_interval = 3, 1
    config.schedule.reference_sync = "with_generator"
    config.batch.prompts_per_step, config.rollout.n, config.reward.workers = 2, 2, 3
    (tmp_path / "config.yaml").write_text(dump_config(config))
    rows = [step_row(1, step_s=9.0), step_row(2, step_s=1.0), step_row(3, step_s=3.0, evaluate_s=1.0)]
    rollouts = [{"step": step, "length_tokens": 10 * step + i} for step in (1, 2, 3) for i in range(4)]
    for name, lines in (("metrics", rows), ("rollouts", rollouts)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    summary = {
        "status": "completed",
        "wall_s": 30.0,
        "time_s": {"evaluate": 3.0},
        "evaluations": [{"eval/version": 0}, {"eval/version": 3}],
        "hardware": {"num_cores": 2, "gpus": []},
    }
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    return tmp_path


def test_what_a_run_took(folder):
    run = measured_run(folder)
    assert run.step_s == pytest.approx(1.5)  # steps 2 and 3; the evaluation is left out
    assert (run.evaluation_s, run.start_up_s) == pytest.approx((1.5, 30 - 3 - 12))
    assert (run.num_cores, run.reward_workers) == (2, 3)
    assert seconds(run.rows[2], "other") == pytest.approx(3 - 1 - 0.65)


def test_shares_are_means_over_the_steps_that_have_them(folder):
    rows = [step_row(1, step_s=1.0) | {"busy/engine": 0.9}, step_row(2, step_s=1.0) | {"busy/engine": 0.4}]
    lines = [*rows, step_row(3, step_s=1.0)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    run = measured_run(folder)
    assert run.share("busy/engine") == 0.4  # the first interval is left out
    assert run.share("busy/policy") is None


def test_what_its_prompts_brought(folder):
    run = measured_run(folder)
    assert run.lengths[1] == [20, 21, 22, 23]
    assert run.workload.prompt_tokens == 19
    assert run.workload.trained_tokens_per_prompt == pytest.approx(160)  # 160, 320, 480 for two prompts
    assert run.workload.mean_answer_tokens == pytest.approx(21.5, abs=0.5)


def test_its_setup_is_that_of_its_settings(folder):
    setup = measured_run(folder).setup
    assert (setup.sync_interval, setup.prompts_per_step, setup.n, setup.num_steps) == (1, 2, 2, 3)
    assert setup.overlap and setup.reference_follows


def test_accelerators_are_nobodys_shared_cores(folder):
    summary = json.loads((folder / "summary.json").read_text())
    summary["hardware"]["gpus"] = ["NVIDIA H200"]
    (folder / "summary.json").write_text(json.dumps(summary))
    assert measured_run(folder).num_cores is None


def test_a_run_that_is_going_on_is_not_measured(folder):
    (folder / "summary.json").unlink()
    with pytest.raises(FileNotFoundError):
        measured_run(folder)


def test_a_run_that_ended_early_is_not_measured(folder):
    summary = json.loads((folder / "summary.json").read_text())
    (folder / "summary.json").write_text(json.dumps(summary | {"status": "interrupted"}))
    with pytest.raises(ConfigError, match="interrupted"):
        measured_run(folder)
