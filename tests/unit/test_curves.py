from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from rlstack.errors import ConfigError
from rlstack.telemetry.curves import Curve, RunLog, make_band, make_curves, read_run, trailing_mean
from rlstack.telemetry.lengths import Lengths, length_histogram, read_lengths

FIGURES = Path(__file__).parents[2] / "tools" / "figures.py"


def write_run(
    parent: Path,
    name: str,
    *,
    beta: float = 0.1,
    steps: Iterable[Mapping[str, Any]] = (),
    rollouts: Iterable[Mapping[str, Any]] = (),
    evaluations: list[dict[str, Any]] | None = None,
) -> Path:
    folder = parent / name
    folder.mkdir()
    settings = {"run": {"name": name, "seed": len(name)}, "objective": {"beta": beta}}
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    for file, rows in (("metrics", steps), ("rollouts", rollouts)):
        (folder / f"{file}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if evaluations is not None:
        (folder / "summary.json").write_text(json.dumps({"evaluations": evaluations}))
    return folder


def rewards(*values: float | None) -> list[dict[str, Any]]:
    return [{"step": step, "reward/mean": value} for step, value in enumerate(values, 1)]


def run_log(name: str, values: Iterable[float | None], *, beta: float = 0.1) -> RunLog:
    steps = rewards(*values)
    return RunLog(path=Path(name), name=name, settings={"beta": beta}, steps=steps)


def test_a_run_that_is_going_on_is_read_up_to_its_last_whole_line(tmp_path: Path) -> None:
    folder = write_run(tmp_path, "a", steps=rewards(0.1, 0.2))
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "rewa')
    assert read_run(folder) == RunLog(
        path=folder, name="a", settings={"objective": {"beta": 0.1}}, steps=rewards(0.1, 0.2)
    )


def test_evaluations_outside_the_steps_are_points_of_the_curve_too(tmp_path: Path) -> None:
    evaluations = [{"eval/version": version, "eval/accuracy": version / 10} for version in (0, 2)]
    run = read_run(write_run(tmp_path, "a", steps=rewards(0.1, 0.2), evaluations=evaluations))
    band = make_band(Curve(label="a", runs=(run,)), "eval/accuracy", window=1)
    assert band is not None
    assert (band.x.tolist(), band.mean.tolist()) == ([0, 2], [0.0, 0.2])


@pytest.mark.parametrize(("steps", "message"), [((), "has not finished a step"), (None, "is not the folder")])
def test_what_is_no_run_is_refused_by_name(steps: tuple[()] | None, message: str, tmp_path: Path) -> None:
    folder = tmp_path / "a" if steps is None else write_run(tmp_path, "a", steps=steps)
    with pytest.raises(ConfigError, match=message) as error:
        read_run(folder)
    assert str(folder) in str(error.value)


@pytest.mark.parametrize(
    ("names", "label"),
    [
        (["dpo-s10"], "dpo-s10"),
        (["dpo-s10-seed0", "dpo-s10-seed1"], "dpo-s10"),
        (["dpo_1", "dpo_10", "dpo_2"], "dpo"),
        (["0", "1"], "0, 1"),
        (["seed0", "seed1"], "seed0, seed1"),
    ],
)
def test_runs_of_the_same_settings_are_one_curve_called_by_what_their_names_share(
    names: list[str], label: str
) -> None:
    runs = [run_log(name, [0.0]) for name in names]
    other = run_log("other", [0.0], beta=1.0)
    first, second = make_curves([*runs[:1], other, *runs[1:]])
    assert (first.label, first.runs) == (label, tuple(runs))
    assert (second.label, second.runs) == ("other", (other,))


def test_curves_that_would_be_called_the_same_are_called_by_all_their_runs() -> None:
    runs = [run_log(f"a-{i}", [0.0], beta=i // 2) for i in range(4)]
    assert [curve.label for curve in make_curves(runs)] == ["a-0, a-1", "a-2, a-3"]


def test_a_band_is_of_the_steps_that_all_seeds_have_and_smooths_each_seed_first() -> None:
    curve = Curve(label="", runs=(run_log("a", [0.0, 2.0, 4.0, 9.0]), run_log("b", [None, 6.0, 0.0])))
    band = make_band(curve, "reward/mean", window=2)
    assert band is not None
    assert band.x.tolist() == [2, 3]
    assert band.mean.tolist() == [4.0, 3.0]
    assert band.low.tolist() == [2.0, 3.0]
    assert band.high.tolist() == [6.0, 3.0]
    assert make_band(curve, "policy/entropy", window=2) is None


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=30), st.integers(1, 40))
def test_a_trailing_mean_is_that_of_the_values_up_to_each(values: list[float], window: int) -> None:
    expected = [np.mean(values[max(0, end - window) : end]) for end in range(1, len(values) + 1)]
    np.testing.assert_allclose(trailing_mean(values, window), expected, atol=1e-10)


def sample(step: int, length: int, reward: float | None, *, task: str = "math") -> dict[str, Any]:
    return {"step": step, "task": task, "length_tokens": length, "reward": reward}


def test_lengths_are_of_the_tasks_whose_rewards_are_verdicts(tmp_path: Path) -> None:
    rows = [
        sample(1, 10, 1.0),
        sample(2, 30, 0.0),
        sample(2, 50, None),
        sample(1, 99, 0.0, task="chat"),
        sample(1, 99, -3.5, task="chat"),
    ]
    run = read_run(write_run(tmp_path, "a", steps=rewards(0.0), rollouts=rows))
    found = read_lengths([run])
    assert found.steps.tolist() == [1, 2]
    assert found.lengths.tolist() == [10, 30]
    assert found.correct.tolist() == [1, 0]


def test_a_histogram_has_shares_by_block_and_nan_where_there_is_nothing() -> None:
    lengths = Lengths(
        steps=np.array([1, 1, 2, 3, 4]),
        lengths=np.array([0, 9, 10, 19, 5]),
        correct=np.array([1, 1, 1, 0, 0]),
    )
    edges = {"step_edges": np.array([1, 3, 5]), "length_edges": np.array([0, 10, 20])}
    right = length_histogram(lengths, correct=True, **edges)
    np.testing.assert_allclose(right, [[2 / 3, 1 / 3], [np.nan, np.nan]])
    wrong = length_histogram(lengths, correct=False, **edges)
    np.testing.assert_allclose(wrong, [[np.nan, np.nan], [0.5, 0.5]])


def draw(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, FIGURES, *arguments]
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=120)


def test_the_tool_writes_a_picture_of_every_metric_that_a_run_has(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    steps = [row | {"rollout/length_mean": 9.0, "reward/mean/a": 0.1} for row in rewards(0.1, 0.3)]
    mixed = [row | {"reward/mean/b": 5.0} for row in steps]
    samples = [sample(1, 4, 0.0), sample(2, 3, 0.0)]  # none is correct
    folders = [
        write_run(tmp_path, "a-0", steps=steps, rollouts=samples),
        write_run(tmp_path, "a-1", steps=steps, rollouts=samples),
        write_run(tmp_path, "b", steps=mixed, beta=1.0),
    ]
    done = draw(*folders, "--out", tmp_path / "new" / "figures", "--window", 2)
    assert done.returncode == 0, done.stderr
    written = [Path(line) for line in done.stdout.splitlines()]
    names = ["dynamics", "reward", "length", "reward_a", "reward_b", "lengths_by_verdict"]
    assert [path.stem for path in written] == names
    for path in written:
        content = path.read_bytes()
        assert content.startswith(b"\x89PNG")
        assert len(content) > 5000


def test_the_tool_refuses_what_it_cannot_draw(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    done = draw(tmp_path / "nowhere", "--out", tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {tmp_path / 'nowhere'}: is not the folder of a run")
    assert draw(tmp_path, "--out", tmp_path, "--window", 0).returncode == 2
