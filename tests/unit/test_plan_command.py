"""`rlstack plan` from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rlstack.cli import app
from rlstack.config.load import load_config
from tests.heavy import HEAVY, run_without

ROOT = Path(__file__).parents[2]
MATH = str(ROOT / "configs/paper/math_s10.yaml")
CHAT = str(ROOT / "configs/paper/chat_s10.yaml")


def plan(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["plan", *arguments])
    return done.exit_code, done.output


def test_a_plan_in_json_explains_every_figure(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    status, output = plan(MATH, "--gpus", "40", "--price-per-gpu-hour", "2", "--explain", "--json", str(path))
    assert status == 0, output
    figures = json.loads(path.read_text())
    assert figures["model"] == "Llama-3.1-8B"
    assert [row["sync_interval"] for row in figures["intervals"]] == [1, 5, 10, 50, None]
    for row in figures["intervals"]:
        gpu_hours = row["step_s"] * 1000 * 40 / 3600
        assert row["gpu_hours_per_1000_steps"] == pytest.approx(gpu_hours)
        assert row["price_per_1000_steps"] == pytest.approx(2 * gpu_hours)
    best = figures["choices"][0]
    assert best["trainer"]["gpus"] + best["engines"]["gpus"] == 40
    for group in ("policy_memory", "engine_memory"):
        for figure in best[group]["figures"]:
            assert f"{figure['name']} = {figure['formula']} = " in output
    assert figures["configured"]["trainer"]["gpus"] == 32


def test_the_settings_to_paste_are_the_layout(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    model, gpus = "policy.model=Llama-3.1-70B", ("--trainer-gpus", "64", "--engine-gpus", "16")
    assert plan(MATH, model, *gpus, "--json", str(path))[0] == 0
    figures = json.loads(path.read_text())
    config = load_config(Path(MATH), [model, *figures["settings"]])
    assert config.policy.tensor_parallel == figures["choices"][0]["trainer"]["tensor_parallel"]
    again = tmp_path / "again.json"
    assert plan(MATH, model, *figures["settings"], *gpus, "--json", str(again))[0] == 0
    assert json.loads(again.read_text())["configured"] == figures["choices"][0]


def test_reward_models_have_gpus_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    status, output = plan(CHAT, "--gpus", "40", "--intervals", "10", "--json", str(path))
    assert status == 0, output
    best = json.loads(path.read_text())["choices"][0]
    assert best["reward_gpus"] == 2
    assert best["trainer"]["gpus"] + best["engines"]["gpus"] == 38


def test_a_comment_is_of_the_configs_own_layout_and_needs_no_number_of_gpus() -> None:
    config = ROOT / "configs" / "clusters" / "llama-3.1-8b_8.yaml"
    status, output = plan(str(config), "--comment")
    assert status == 0, output
    assert config.read_text().endswith(output)
    status, output = plan(str(config), "policy.model=Llama-3.1-70B", "--comment")
    assert (status, "#   fits: NO" in output) == (0, True)


def test_a_tiny_model_fits_on_two_gpus() -> None:
    status, output = plan(str(ROOT / "configs/quickstart.yaml"), "--gpus", "2", "--intervals", "1,inf")
    assert status == 0, output
    assert "seed, fp32, on 2 h200: policy TP1PP1DP1, engines 1xTP1" in output


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        ([MATH, "--gpus", "40", "--gpu", "a100"], "--gpu = a100: h100 | h200 | b200 is accepted"),
        (
            [MATH, "policy.model=Llama-9", "--gpus", "40"],
            "there is no config.json, and the name is not one of",
        ),
        ([MATH, "policy.tensor_parallel=3", "--gpus", "40"], "policy.tensor_parallel = 3: does not divide"),
        ([MATH, "--gpus", "40", "--assume", "luck=1"], "--assume = 'luck=1': NAME=NUMBER is accepted"),
        ([MATH, "--gpus", "40", "--intervals", "x"], "--intervals 'x': positive integers and inf"),
        ([MATH], "--gpus is not set"),
        ([MATH, "--gpus", "40", "--json", "/nowhere/plan.json"], "--json = /nowhere/plan.json: cannot be"),
    ],
)
def test_what_cannot_be_planned_is_refused_in_one_line(arguments: list[str], shown: str) -> None:
    done = CliRunner().invoke(app, ["plan", *arguments])
    assert done.exit_code == 2
    assert f"error: {shown}" in done.stderr or shown in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_help_refusals_and_plans_import_nothing_heavy(tmp_path: Path) -> None:
    tiny = [str(ROOT / "configs/quickstart.yaml"), "--gpus", "2", "--intervals", "1"]
    run_without(
        HEAVY,
        (["plan", "--help"], 0),
        (["plan", MATH, "--gpus", "40", "--gpu", "a100"], 2),
        (["plan", *tiny, "--json", str(tmp_path / "plan.json")], 0),
    )
