"""`rlstack score` with the math verifier and with plug-ins; tests/e2e has the reward models."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from rlstack.cli import app
from rlstack.data.journal import Journal
from rlstack.data.records import Score
from rlstack.files import written_at_once
from rlstack.orchestration import scored_file
from rlstack.rewards.agreement import (
    Labelled,
    are_verdicts,
    disagreements,
    labelled_answers,
    ordered_share,
)

ROOT = Path(__file__).parents[2]
Run = Callable[..., Result]
BOX = "The final answer is $\\boxed{{{}}}$. I hope it is correct."
ROWS = [
    {
        "id": "first",
        "problem": "1/4+1/4",
        "answer": "1/2",
        "responses": [BOX.format("2/4"), "[no box] 1/2"],
        "correct": [True, True],
        "extra": {"half a surrogate pair": "\ud800", "höhe": None},
    },
    {"problem": "2", "answer": 2, "responses": []},
    {"problem": "3", "answer": "3", "responses": [BOX.format("9^{9^{9^{9}}}"), BOX.format("4")]},
]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs `rlstack score answers.jsonl --out out.jsonl` on rows in a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def run(rows: list[dict[str, Any]], *arguments: str) -> Result:
        Path("answers.jsonl").write_text("\n".join(map(json.dumps, rows)))
        return CliRunner().invoke(app, ["score", "answers.jsonl", "--out", "out.jsonl", *arguments])

    return run


def test_rows_are_kept_and_get_rewards_and_outcomes(run: Run) -> None:
    Path("run.yaml").write_text("policy: {model: none}\nreward: {timeout_s: 1.0}")
    done = run(ROWS, "--reward", "math", "--config", "run.yaml")
    assert done.exit_code == 0, done.output
    first, second, third = map(json.loads, Path("out.jsonl").read_text(encoding="utf-8").splitlines())
    assert first == ROWS[0] | {"rewards": [1.0, 0.0], "outcomes": ["ok", "ok"]}
    assert second == ROWS[1] | {"rewards": [], "outcomes": []}
    assert third == ROWS[2] | {"rewards": [None, 0.0], "outcomes": ["timeout", "ok"]}
    assert "responses 4/4" in done.output
    assert "mean reward 0.3333, 1 timeouts, 0 errors" in done.output
    assert "agreement with the labels: 1 of 2 (50.00%)" in done.output
    shown = next(line.split() for line in done.output.splitlines() if "first" in line)
    assert shown == ["first", "1", "correct", "0", "1/2", "[no", "box]", "1/2"]


def test_a_plugin_of_the_working_directory_scores(run: Run) -> None:
    Path("mine.py").write_text("def length(problem, answer, responses): return [len(r) for r in responses]")
    rows = [{"problem": "p", "responses": ["a", "bbb", "cc"], "correct": [False, True, False]}]
    done = run(rows, "--reward", "mine:length")
    assert done.exit_code == 0, done.output
    assert json.loads(Path("out.jsonl").read_text())["rewards"] == [1.0, 3.0, 2.0]
    assert "a correct response scores above an incorrect one to the same problem: 100.0%" in done.output


def test_nothing_scored_is_a_failure(run: Run) -> None:
    Path("mine.py").write_text("def no(problem, answer, responses): raise ValueError")
    done = run([{"problem": "p", "responses": ["a"]}], "--reward", "mine:no")
    assert done.exit_code == 1
    assert json.loads(Path("out.jsonl").read_text())["outcomes"] == ["error"]


@pytest.mark.parametrize(
    ("row", "reward", "message"),
    [
        (
            {"answer": "1", "responses": []},
            "mine:length",
            "FILE = 'answers.jsonl', line 2: `problem` must be a text",
        ),
        ({"problem": "1", "responses": []}, "math", "line 2: `answer` must be a text or a number"),
        ({"problem": "1", "answer": "1"}, "math", "line 2: `responses` must be a list of texts"),
        ({"problem": "1", "answer": "1", "responses": [1]}, "math", "line 2: `responses` must be a list of"),
        (ROWS[0] | {"correct": [True]}, "math", "line 2: `correct` must be a list with one label for each"),
        (ROWS[0] | {"correct": [True, "perhaps"]}, "math", "line 2: `correct` has 'perhaps'; true, false, 1"),
        (
            ROWS[0] | {"correct": [True, 2]},
            "math",
            "line 2: `correct` has 2; true, false, 1 or 0 is accepted",
        ),
        (ROWS[0] | {"correct": [None, True]}, "math", "line 2: `correct` has None; true, false, 1 or 0"),
        (ROWS[0], "exact", "--reward = exact: the folder of a reward model | math | the name of one of"),
        (ROWS[0], "nowhere:f", "--reward = nowhere:f: "),
    ],
)
def test_what_cannot_be_scored_is_one_error_and_no_file(
    run: Run, row: dict[str, Any], reward: str, message: str
) -> None:
    done = run([ROWS[1], row], "--reward", reward)
    assert done.exit_code == 2, done.output
    assert message in done.output
    assert [path.name for path in Path().iterdir()] == ["answers.jsonl"]


def test_a_place_that_cannot_be_written_to_is_refused(run: Run) -> None:
    done = run(ROWS[:1], "--reward", "math", "--out", "nowhere/out.jsonl")
    assert done.exit_code == 2
    assert "--out = nowhere/out.jsonl: No such file or directory; give a file in a folder" in done.output


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda out: out.mkdir(), "Is a directory; give a file in a folder to write to"),
        (lambda out: os.mkfifo(out), "Not a file; give a file in a folder to write to"),
        (lambda out: os.link("answers.jsonl", out), "Is FILE itself"),
        (lambda out: out.write_text("mine"), "is there, without the out.jsonl.settings.json of `rlstack"),
        (lambda out: out.write_text('{"a": 1}\n'), "is there, without the out.jsonl.settings.json of"),
    ],
    ids=["folder", "pipe", "input", "text", "rows"],
)
def test_an_unusable_place_is_refused_before_the_work_and_left_as_it_is(
    run: Run, make: Callable[[Path], Any], message: str
) -> None:
    Path("mine.py").write_text(MINE)
    Path("answers.jsonl").touch()
    make(Path("out.jsonl"))
    there = Path("out.jsonl").read_bytes() if message.startswith("is there") else b""
    done = run(ROWS[1:2], "--reward", "mine:counted")
    assert done.exit_code == 2
    assert f"--out = out.jsonl: {message}" in done.output
    assert not Path("calls").exists()
    assert not there or Path("out.jsonl").read_bytes() == there


MINE = """
import pathlib, os, time

def counted(problem, answer, responses):
    with open("calls", "a") as file:
        file.write(problem)
    if problem == os.environ.get("FAILS_AT"):
        os.kill(os.getppid(), 2)
        time.sleep(60)
    return [float(len(response)) for response in responses]

def none(problem, answer, responses):
    return [None if response == "a" else 1.0 for response in responses]
"""


def test_an_interrupted_call_keeps_its_rewards_and_the_next_one_goes_on(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("mine.py").write_text(MINE)
    rows = [{"problem": name, "responses": [name, name * 2], "correct": ["no", "Yes"]} for name in "abcde"]
    monkeypatch.setenv("FAILS_AT", "d")
    first = run(rows, "--reward", "mine:counted")
    assert first.exit_code == 130, first.output
    kept = Path("out.jsonl").read_bytes()
    assert [json.loads(line)["rewards"] for line in kept.splitlines()] == [[1.0, 2.0]] * 2
    assert "4 of 10 responses are in out.jsonl; the same command continues after them" in first.output
    Path("out.jsonl").write_bytes(kept + b'{"problem": "c", "resp')  # as the end of a process may leave it

    monkeypatch.delenv("FAILS_AT")
    second = run(rows, "--reward", "mine:counted")
    assert second.exit_code == 0, second.output
    lines = Path("out.jsonl").read_bytes()
    assert lines.startswith(kept)
    assert [json.loads(line)["problem"] for line in lines.splitlines()] == list("abcde")
    assert Path("calls").read_text() == "abcd" + "cde"  # c was scored together with d
    assert "4 of 10 responses are in out.jsonl already" in second.output
    assert "6 of 10 responses in" in second.output and "mean reward 1.5000" in second.output
    assert "same problem: 100.0%" in second.output

    third = run(rows, "--reward", "mine:counted")
    assert third.exit_code == 0 and Path("calls").read_text() == "abcdcde"
    assert Path("out.jsonl").read_bytes() == lines


@pytest.mark.parametrize(
    ("rows", "arguments", "message"),
    [
        (
            ["a", "c"],
            ("--reward", "mine:counted"),
            "out.jsonl, line 2: is not FILE = 'answers.jsonl', line 2",
        ),
        (["a"], ("--reward", "mine:counted"), "out.jsonl: has more rows than FILE"),
        (["a", "b"], ("--reward", "mine:none"), "out.jsonl: holds rewards with another reward; give another"),
        (
            ["a", "b"],
            ("--reward", "mine:counted", "--answer-field", "gold"),
            "holds rewards with another answer_field",
        ),
    ],
    ids=["row", "fewer", "reward", "field"],
)
def test_rewards_of_something_else_are_refused_and_kept(
    run: Run, rows: list[str], arguments: tuple[str, ...], message: str
) -> None:
    Path("mine.py").write_text(MINE)
    assert run([{"problem": p, "responses": [p]} for p in "ab"], "--reward", "mine:counted").exit_code == 0
    there = Path("out.jsonl").read_bytes()
    done = run([{"problem": p, "responses": [p]} for p in rows], *arguments)
    assert done.exit_code == 2 and message in done.output, done.output
    assert Path("out.jsonl").read_bytes() == there


def test_a_plugin_whose_source_has_changed_is_another_reward(run: Run) -> None:
    Path("mine.py").write_text(MINE)
    rows = [{"problem": "a", "responses": ["a"]}]
    assert run(rows, "--reward", "mine:counted").exit_code == 0
    Path("mine.py").write_text(MINE + "\n# changed")
    assert "holds rewards with another source" in run(rows, "--reward", "mine:counted").output


def test_an_answer_without_a_reward_by_choice_is_no_error(run: Run) -> None:
    Path("mine.py").write_text(MINE)
    done = run([{"problem": "p", "responses": ["a", "b"]}], "--reward", "mine:none")
    assert done.exit_code == 0, done.output
    assert json.loads(Path("out.jsonl").read_text())["outcomes"] == ["none", "ok"]
    assert "0 timeouts, 0 errors, 1 without a reward by choice" in done.output


def test_labels_as_texts_and_rows_of_one_id(run: Run) -> None:
    Path("mine.py").write_text("def length(problem, answer, responses): return [len(r) for r in responses]")
    rows = [
        {"id": "x", "q": "a", "gold": 1, "responses": ["aa", "a"], "correct": ["TRUE", "false"]},
        {"id": "x", "q": "b", "gold": 2, "responses": ["aaaaaaa", "aaaaa"], "correct": ["1", "0"]},
        {"id": None, "q": "c", "gold": 3, "responses": ["aaa", "aa"], "correct": [1.0, 0]},
    ]
    done = run(rows, "--reward", "mine:length", "--problem-field", "q", "--answer-field", "gold")
    assert "same problem: 100.0%" in done.output, done.output


def test_math_needs_no_problem_and_shows_the_named_answer(run: Run) -> None:
    rows = [{"question": ["a", "list"], "gold": "5", "responses": [BOX.format("5"), BOX.format("6")]}]
    rows[0]["correct"] = ["yes", "yes"]
    done = run(rows, "--reward", "math", "--answer-field", "gold")
    assert done.exit_code == 0, done.output
    assert json.loads(Path("out.jsonl").read_text())["rewards"] == [1.0, 0.0]
    assert next(line.split() for line in done.output.splitlines() if "incorrect" not in line and " 6" in line)


PROCESS = [sys.executable, "-c", "import sys; from rlstack.cli import main; sys.exit(main())", "score"]


def test_a_terminal_that_lacks_a_character_shows_another(run: Run, tmp_path: Path) -> None:
    row = {"answer": "√2", "responses": [BOX.format("√3")], "correct": [True]}
    Path("rows.jsonl").write_text(json.dumps(row))
    done = subprocess.run(
        [*PROCESS, "rows.jsonl", "--reward", "math", "--out", "out.jsonl"],
        env=os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "agreement with the labels: 0 of 1" in done.stdout and "?3" in done.stdout


def test_a_closed_terminal_ends_the_command_and_keeps_the_rewards(run: Run) -> None:
    Path("mine.py").write_text(MINE)
    Path("rows.jsonl").write_text("\n".join(json.dumps({"problem": p, "responses": [p]}) for p in "abc"))
    command = [*PROCESS, "rows.jsonl", "--reward", "mine:counted", "--out", "out.jsonl"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, env=environment, text=True, **pipes) as process:
        process.stdout.close()
        told = process.stderr.read()
    assert process.returncode == 1
    assert told == "3 of 3 responses are in out.jsonl; the same command continues after them\n"
    assert len(Path("out.jsonl").read_text().splitlines()) == 3


def test_a_full_disk_keeps_the_rows_before_it_and_says_so(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("mine.py").write_text(MINE)
    written = Journal.append

    def append(self: Journal, rows: Any) -> None:
        rows = list(rows)
        if rows and rows[-1]["problem"] == "c":
            raise OSError(28, "No space left on device")
        written(self, rows)

    monkeypatch.setattr(Journal, "append", append)
    monkeypatch.setattr(scored_file, "WRITE_EVERY_S", 0.0)
    done = run([{"problem": p, "responses": [p]} for p in "abc"], "--reward", "mine:counted")
    assert done.exit_code == 1 and "No space left on device" in done.output
    assert len(Path("out.jsonl").read_text().splitlines()) == 2


def test_an_interrupted_file_leaves_the_earlier_one(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text("earlier")
    with pytest.raises(KeyboardInterrupt), written_at_once(path) as file:
        file.write("half a l")
        raise KeyboardInterrupt
    assert path.read_text() == "earlier"
    assert list(tmp_path.iterdir()) == [path]


def answers(*pairs: tuple[bool, float | None], row: str = "0") -> list[Labelled]:
    return [Labelled(int(row), row, i, label, reward, "", "") for i, (label, reward) in enumerate(pairs)]


def test_an_answer_without_a_reward_agrees_with_no_label() -> None:
    given = answers((True, 1.0), (False, 0.0), (True, 0.0), (False, None))
    assert are_verdicts(given)
    assert [answer.response for answer in disagreements(given)] == [2, 3]


def test_scalar_rewards_are_compared_within_rows() -> None:
    """Of row 0: 2 > 1, 2 < 3, 0 < 1, 0 < 3; of row 1: a tie."""
    given = answers((True, 2.0), (True, 0.0), (False, 1.0), (False, 3.0), (True, None))
    given += answers((True, 5.0), (False, 5.0), row="1")
    assert not are_verdicts(given)
    assert ordered_share(given) == pytest.approx((1 + 0.5) / 5)
    assert ordered_share(answers((True, 1.0), (True, 2.0))) is None


def test_labelled_answers_show_the_box_or_the_end() -> None:
    record = {"answer": "1", "responses": [BOX.format("2/4"), "x" * 100 + "\nend"], "correct": [1, 0]}
    box, end = labelled_answers(record, [Score(reward=0.0), Score(reward=None)], index=7)
    assert box == Labelled(7, "7", 0, True, 0.0, "1", "2/4")
    assert end.given.startswith("...x") and end.given.endswith("x end") and len(end.given) == 63
    assert labelled_answers({"responses": ["a"]}, [Score(reward=0.0)], index=0) == []
