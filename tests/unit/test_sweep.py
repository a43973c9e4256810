from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from rlstack.config.load import dump_config, load_config
from rlstack.telemetry.curves import RunLog

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))
import sweep
from sweep import Run
from sweep_claims import CLAIMS, findings, markdown_findings
from sweep_findings import Change, Comparison, Expected, Verdict, compare, pooled_deviation
from sweep_notes import utility_rows
from sweep_report import FIGURES
from sweep_table import RunResult, by_recipe, markdown_table, measures, write_csv

ACCURACY = "eval/accuracy_final"
LENGTH = ("rollout/length_mean_first20", "rollout/length_mean_last20")


def result(recipe: str, seed: int = 0, *, alarms: tuple[str, ...] = (), **values: float) -> RunResult:
    named = {name.replace("__", "/"): value for name, value in values.items()}
    return RunResult(
        recipe=recipe,
        seed=seed,
        status="completed",
        alarms=alarms,
        values={"wall_s": 65, **named},
        log=RunLog(path=Path(recipe), name=recipe, settings={}, steps=[]),
    )


def accurate(recipe: str, *accuracies: float) -> list[RunResult]:
    return [result(recipe, seed, eval__accuracy_final=value) for seed, value in enumerate(accuracies)]


def verdict_of(claim: str, results: list[RunResult]) -> Verdict:
    return next(finding.verdict for finding in findings(results) if finding.claim == claim)


def test_measures_are_means_over_either_end_and_the_first_and_last_evaluation() -> None:
    steps: list[dict[str, Any]] = [
        {"step": i, "reward/mean": i, "policy/entropy": None} for i in range(1, 41)
    ]
    summary = {
        "wall_s": 70.0,
        "steps": 40,
        "evaluations": [
            {"eval/version": 0, "eval/accuracy": 0.4},
            {"eval/version": 20, "eval/accuracy": 0.9},
            {"eval/version": 40, "eval/accuracy": 0.8, "eval/accuracy_stderr": None},
        ],
    }
    assert measures(summary, steps) == {
        "wall_s": 70.0,
        "reward/mean_first20": 10.5,
        "reward/mean_last20": 30.5,
        "reward/mean_best20": 30.5,
        "eval/accuracy_initial": 0.4,
        "eval/version_initial": 0,
        "eval/accuracy_final": 0.8,
        "eval/version_final": 40,
    }


def test_the_best_of_a_measure_is_of_as_many_steps_as_the_last() -> None:
    peak = [0.0] * 20 + [1.0] * 10 + [0.0] * 20
    values = measures({"wall_s": 1.0, "steps": 50, "evaluations": []}, [{"notes/utility": u} for u in peak])
    assert (values["notes/utility_best20"], values["notes/utility_last20"]) == (0.5, 0.0)


def test_the_utility_is_that_of_the_notes_of_a_step(tmp_path: Path) -> None:
    note = {"problem": "Write a note to Ann about the book.", "text": "Dear Ann, thank you for the book."}
    rows = [
        {"step": 1, "problem": "1/2+1/3", "text": "x"},
        {"step": 1, **note},
        {"step": 1, **note, "text": ""},
        {"step": 2, **note},
    ]
    (tmp_path / "rollouts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    one, two = utility_rows(tmp_path / "rollouts.jsonl")
    assert two["step"] == 2
    assert two["notes/utility"] == pytest.approx(2 * one["notes/utility"]) == pytest.approx(3.0)


def test_a_run_that_ended_early_has_no_final_evaluation() -> None:
    summary = {"wall_s": 1.0, "steps": 7, "evaluations": [{"eval/version": 0, "eval/accuracy": 0.4}]}
    assert "eval/accuracy_final" not in measures(summary, [{"step": 7, "reward/mean": 0.1}])


def test_the_table_has_means_and_standard_errors_over_seeds(tmp_path: Path) -> None:
    results = [*accurate("online", 0.8, 0.9), *accurate("offline", 0.6)]
    _, _, online, offline = markdown_table(results).splitlines()
    assert online == "| online | 0, 1 | - -> - | - -> 0.850 ± 0.050 | - -> - | - -> - | 1:05 |"
    assert "| - -> 0.600 |" in offline
    write_csv(results, tmp_path / "runs.csv")
    with (tmp_path / "runs.csv").open(newline="") as file:
        assert [row[ACCURACY] for row in csv.DictReader(file)] == ["0.8", "0.9", "0.6"]


@pytest.mark.parametrize(
    ("expected", "verdicts"),  # of differences of -3, -1, 1 and 3 where the noise is 2
    [
        (Expected.lower, "found, within noise, within noise, not found"),
        (Expected.same, "not found, found, found, not found"),
        (Expected.not_higher, "found, found, found, not found"),
    ],
)
def test_what_is_less_than_noise_is_no_difference(expected: Expected, verdicts: str) -> None:
    assert ", ".join(compare(d, 2.0, expected) for d in (-3.0, -1.0, 1.0, 3.0)) == verdicts


def test_the_noise_is_pooled_over_recipes_by_their_degrees_of_freedom() -> None:
    results = [*accurate("a", 0.0, 2.0), *accurate("b", 0.0, 1.0, 2.0), *accurate("c", 5.0)]
    collapsed = accurate("length_collapse", 0.0, 100.0)
    deviation = pooled_deviation(by_recipe([*results, *collapsed]), ACCURACY)
    assert deviation == pytest.approx(((2 * 1 + 1 * 2) / 3) ** 0.5)
    assert pooled_deviation(by_recipe(accurate("c", 5.0)), ACCURACY) is None


def test_a_comparison_says_the_difference_and_its_noise() -> None:
    claim = Comparison(claim="worse", recipe="offline", expected=Expected.lower)
    results = [*accurate("offline", 0.60, 0.64), *accurate("online", 0.80, 0.84)]
    finding = claim.judge(by_recipe(results))
    assert finding == ("worse", "found", "offline 0.620, online 0.820: -0.200, noise 0.057")
    assert claim.judge(by_recipe(results[:2])).verdict is Verdict.not_measured
    assert claim.judge(by_recipe([results[0], results[2]])).verdict is Verdict.not_measured


def test_a_change_must_be_in_every_run_and_raise_its_alarm() -> None:
    claim = Change(claim="short", recipe="x", series=LENGTH, at_most=0.5, alarm="length_collapse")

    def verdict(*runs: tuple[float, str]) -> Verdict:
        results = [
            result("x", alarms=(alarm,), rollout__length_mean_first20=20.0, rollout__length_mean_last20=last)
            for last, alarm in runs
        ]
        return claim.judge({"x": results}).verdict

    assert verdict((10.0, "length_collapse")) is Verdict.found
    assert verdict((10.0, "length_collapse"), (11.0, "length_collapse")) is Verdict.not_found
    assert verdict((10.0, "divergence")) is Verdict.not_found
    assert verdict() is Verdict.not_measured


def test_a_sweep_like_the_paper_confirms_its_comparisons_of_regimes() -> None:
    good = {recipe: accurate(recipe, 0.80, 0.82) for recipe in ("s50", "s10", "s5", "online", "grpo")}
    results = [*accurate("offline", 0.60, 0.62), *(run for runs in good.values() for run in runs)]
    assert verdict_of("offline is clearly worse than online", results) is Verdict.found
    assert verdict_of("semi-online s10 is as good as online", results) is Verdict.found
    assert verdict_of("GRPO is as good as online DPO", results) is Verdict.found
    assert verdict_of("GroupDPO is as good as online DPO", results) is Verdict.not_measured
    assert markdown_findings(results).count("\n| ") == len(CLAIMS) + 1


def test_every_claim_and_figure_is_about_recipes_that_there_are() -> None:
    recipes = {path.stem for path in sweep.RECIPES.glob("*.yaml")}
    assert {claim.recipe for claim in CLAIMS} <= recipes
    assert {claim.than for claim in CLAIMS if isinstance(claim, Comparison)} <= recipes
    assert {recipe for shown in FIGURES.values() for recipe in shown} <= recipes
    assert set(sweep.DEFAULT) <= recipes


def test_a_finished_run_of_a_recipe_is_kept(tmp_path: Path) -> None:
    run = Run("online", 1)
    folder = tmp_path / "online-seed1"
    folder.mkdir()
    config = load_config(sweep.recipe_file(run), sweep.settings_of(run, tmp_path, []))
    assert (config.run.name, config.run.dir, config.run.seed) == ("online-seed1", str(tmp_path), 1)
    (folder / "config.yaml").write_text(dump_config(config))
    assert not sweep.is_finished(run, tmp_path, [])
    (folder / "summary.json").write_text(json.dumps({"status": "completed"}))
    assert sweep.is_finished(run, tmp_path, [])
    assert not sweep.is_finished(run, tmp_path, ["optimizer.lr=1e-3"])


def test_a_failed_run_does_not_lose_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = []

    def train(run: Run, out: Path, overrides: object) -> int:
        trained.append(run)
        return int(run.seed == 0)

    monkeypatch.setattr(sweep, "train", train)
    monkeypatch.setattr(sweep, "is_finished", lambda run, out, overrides: run.seed == 1)
    monkeypatch.setattr(sweep, "in_short", lambda folder: f"{folder.name} is done")
    runs = [Run("online", 0), Run("online", 1)]
    assert sweep.train_all(runs, tmp_path, [], num_kept=0) == [Run("online", 0)]
    assert trained == runs
    printed = capsys.readouterr().out
    assert f"failed with exit status 1: {tmp_path}/online-seed0.log" in printed
    assert "online-seed1 is done" in printed


def test_the_time_that_is_left_goes_by_the_recipe_and_else_by_the_mean() -> None:
    todo = [Run("grpo", 1), Run("offline", 1), Run("nll", 0)]
    assert sweep.remaining_s(todo, {}) is None
    assert sweep.remaining_s(todo, {"grpo": [100.0, 140.0], "offline": [40.0]}) == 120 + 40 + 80
