"""The check of GPUs: its parts run apart, have limits, and pass for nothing that did not happen."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))
sys.path.append(str(Path(__file__).parents[2] / "tools" / "gpu_check" / "jobs"))
from gpu_check import command, runner
from gpu_check.parts import FAILED, NOT_RUN, PASSED, SKIPPED, TIMED_OUT, Ending, Part, judge
from gpu_check.profiles import LIMIT_S, PROFILES
from gpu_check.record import save
from gpu_check.runner import run_parts
from gpu_check.shown import text_of
from training_run import LEARNS_AFTER, problems

ROOT = Path(__file__).parents[2]
every_part = [part for profile in PROFILES.values() for part in profile()]


def part(code: str, **settings) -> Part:
    """Of Python code, which has `leave`."""
    lines = "import json, os, pathlib, sys, time\n"
    lines += "leave = lambda **d: pathlib.Path(os.environ['GPU_CHECK_DETAILS']).write_text(json.dumps(d))\n"
    return Part(
        **{"name": "it", "shows": "it runs", "command": ("-c", lines + code), "limit_s": 20.0} | settings
    )


def rows_of(*parts: Part, folder: Path, num_gpus: int = 1, dry_run: bool = False, left_s: float = 600.0):
    return list(
        run_parts(
            parts,
            out=folder,
            log=folder / "log",
            environment={},
            num_gpus=num_gpus,
            dry_run=dry_run,
            deadline=time.monotonic() + left_s,
            patience=1.0,
            say=lambda text: None,
        )
    )


def test_a_part_that_fails_is_shown_with_its_last_lines_and_the_next_one_runs(tmp_path) -> None:
    bad = part("leave(cuda=True, passed=3); print('so far'); sys.exit('the GPU is gone')")
    failed, passed = rows_of(bad, part("leave(cuda=True)"), folder=tmp_path)
    assert (failed["outcome"], failed["reason"]) == (FAILED, "exit status 1")
    assert failed["last_lines"] == ["so far", "the GPU is gone"] and failed["details"]["passed"] == 3
    assert (passed["outcome"], passed["last_lines"]) == (PASSED, [])
    assert "so far" in (tmp_path / "log").read_text()


def test_a_part_ends_at_its_limit_with_what_it_has_started(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(runner, "GRACE_S", 0.1)
    sleeping = "[sys.executable, '-c', 'import time; time.sleep(600)']"
    code = f"import subprocess\nleave(pid=subprocess.Popen({sleeping}).pid, passed=5)\ntime.sleep(600)"
    (row,) = rows_of(part(code, limit_s=5.0), folder=tmp_path)
    assert (row["outcome"], row["reason"]) == (TIMED_OUT, "stopped after 5 s")
    assert row["details"]["passed"] == 5  # what it had written before
    child = Path(f"/proc/{row['details']['pid']}/stat")
    while child.exists() and child.read_text().split()[2] != "Z":  # it has been killed, and ends soon
        time.sleep(0.01)


def test_what_cannot_run_is_named_with_the_reason(tmp_path) -> None:
    both = part("leave(cuda=True)", num_gpus=2)
    (row,) = rows_of(both, folder=tmp_path)
    assert (row["outcome"], row["reason"]) == (SKIPPED, "it needs 2 GPUs, and CUDA finds 1")
    (row,) = rows_of(both, folder=tmp_path, dry_run=True)
    assert row["outcome"] == SKIPPED and "no path on the CPU" in row["reason"]
    (row,) = rows_of(replace(both, dry=("-c", "print('{out}')")), folder=tmp_path, num_gpus=0, dry_run=True)
    assert row["outcome"] == PASSED and row["command"] == "python -c 'print('\"'\"'OUT'\"'\"')'"
    assert str(tmp_path) in (tmp_path / "log").read_text()
    (row,) = rows_of(part(""), folder=tmp_path, left_s=1.0)
    assert row["outcome"] == NOT_RUN


@pytest.mark.parametrize(
    ("details", "dry_run", "reason"),
    [
        ({"cuda": True, "passed": 4}, False, ""),
        ({"cuda": False, "passed": 4}, False, "it ran without CUDA"),
        ({}, False, "it ran without CUDA"),
        ({"cuda": False, "passed": 4}, True, ""),
        ({"cuda": True, "passed": 0}, False, "none of its tests ran"),
    ],
)
def test_an_exit_status_of_0_is_not_enough(details: dict, dry_run: bool, reason: str) -> None:
    outcome, found = judge(part(""), Ending(0, 1.0, 20.0, [], details), dry_run=dry_run)
    assert (outcome, found) == (FAILED if reason else PASSED, reason)


def test_the_tests_of_a_part_are_counted_as_they_come(tmp_path, monkeypatch) -> None:
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)  # which is this process's, not the part's
    (tmp_path / "test_it.py").write_text(
        "import pytest\ndef test_a(): pass\ndef test_b(): assert 0\ndef test_c(): pytest.skip('no')\n"
    )
    arguments = ("-m", "pytest", "-p", "tools.gpu_check.tally", f"{tmp_path}/test_it.py")
    pytest_part = part("", dry=arguments, limit_s=300.0)
    (row,) = rows_of(pytest_part, folder=tmp_path, dry_run=True)
    assert row["outcome"] == FAILED
    counts = {name: row["details"][name] for name in ("passed", "failed", "skipped")}
    assert counts == {"passed": 1, "failed": 1, "skipped": 1}
    assert row["details"]["failures"][0].endswith("test_it.py::test_b")


@pytest.mark.parametrize("each", every_part, ids=lambda each: each.name)
def test_a_part_names_files_that_are_there(each: Part) -> None:
    named = [word for word in (*each.command, *(each.dry or ())) if word.endswith(".py")]
    assert named and all((ROOT / word.format(out="", workers=1)).is_file() for word in named)


def test_a_bare_machine_is_done_within_nine_minutes_with_grace() -> None:
    assert LIMIT_S["bare"] + runner.GRACE_S <= 540


def test_a_result_file_is_whole_after_each_part_and_shown_as_a_table(tmp_path) -> None:
    result = {
        "profile": "bare",
        "dry_run": False,
        "date": "2026-01-02",
        "machine": {"gpus": ["NVIDIA H200"]},
    }
    rows = rows_of(part("leave(cuda=True, passed=2, skipped=1)"), part("sys.exit('no')"), folder=tmp_path)
    for count in (1, 2):
        save(tmp_path / "gpu_bare.json", result, rows[:count], complete=count == 2)
        read = json.loads((tmp_path / "gpu_bare.json").read_text())
        assert (len(read["rows"]), read["complete"]) == (count, count == 2)
    text = text_of(result, rows)
    assert "bare check of 2026-01-02 on NVIDIA H200" in text
    assert "2 tests passed, 1 skipped" in text and "  | no" in text


def test_a_dry_run_writes_no_results_unless_told_where(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(command, "DRY_OUT", tmp_path / "dry")
    monkeypatch.setattr(command, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(command, "find_gpus", lambda: {"names": [], "cuda": None})
    monkeypatch.setattr(command, "PROFILES", {"bare": lambda: [part("", dry=("-c", ""))], "full": None})
    assert command.check(command.parse(["run", "--dry-run"])) == 0
    read = json.loads((tmp_path / "dry" / "gpu_bare.json").read_text())
    assert read["dry_run"] and read["complete"] and read["versions"]["python"] and read["seconds"] > 0
    assert not (tmp_path / "results").exists()
    assert command.check(command.parse(["run"])) == 0  # without a GPU everything is skipped
    read = json.loads((tmp_path / "results" / "gpu_bare.json").read_text())
    assert [row["outcome"] for row in read["rows"]] == [SKIPPED]


def test_the_parts_find_what_was_carried_before_all_else(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/given")
    found = command.environment(tmp_path)["PYTHONPATH"].split(os.pathsep)
    assert found == [str(tmp_path), str(ROOT), str(ROOT / "kernels"), "/given"]
    assert command.environment(tmp_path / "not-there")["PYTHONPATH"].split(os.pathsep) == found[1:]


def run_of(num_steps: int) -> tuple[list[dict], dict]:
    """The log and the summary of a run as it should be."""
    step = {"grad_norm": 1.0, "mismatch/logprob_abs_mean": 1e-4, "sync/verified": 1}
    steps = [{"step": index + 1, **step} for index in range(num_steps)]
    return steps, {"status": "completed", "reward_first20": 0.3, "reward_last20": 0.7}


@pytest.mark.parametrize(
    ("num_steps", "of_steps", "of_summary", "message"),
    [
        (4, {}, {}, None),
        (LEARNS_AFTER, {}, {}, None),
        (4, {}, {"status": "failed"}, "its status is failed"),
        (4, {}, {"reward_last20": 0.1}, None),  # too short to have learnt anything
        (LEARNS_AFTER, {}, {"reward_last20": 0.3}, "the reward has not grown"),
        (4, {"step": 1}, {}, "it logged the steps"),
        (4, {"sync/verified": 0}, {}, "no sync was verified"),
        (4, {"mismatch/logprob_abs_mean": 0.2}, {}, "differ by 0.2 nats"),
        (4, {"mismatch/logprob_abs_mean": float("nan")}, {}, "differ by nan nats"),
        (4, {"mismatch/logprob_abs_mean": None}, {}, "differ by None nats"),
        (4, {"grad_norm": 0.0}, {}, "a step had no gradient"),
    ],
)
def test_a_run_that_ended_is_held_against_what_it_must_be(
    num_steps: int, of_steps: dict, of_summary: dict, message: str | None
) -> None:
    steps, summary = run_of(num_steps)
    found = problems(
        [step | of_steps for step in steps], summary | of_summary, num_steps=num_steps, max_mismatch=0.05
    )
    assert [message in line for line in found] == [True] * (message is not None)
