"""`rlstack score` with the math verifier and with plug-ins; tests/e2e has the reward models."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from rlstack.cli import app
from rlstack.data.records import Score
from rlstack.files import written_at_once
from rlstack.rewards.agreement import (
    Labelled,
    are_verdicts,
    disagreements,
    labelled_answers,
    ordered_share,
)
from rlstack.rewards.answer_file import to_line

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
            "math",
            "FILE = 'answers.jsonl', line 2: `problem` must be a text",
        ),
        ({"problem": "1", "responses": []}, "math", "line 2: `answer` must be a text or a number"),
        ({"problem": "1", "answer": "1"}, "math", "line 2: `responses` must be a list of texts"),
        ({"problem": "1", "answer": "1", "responses": [1]}, "math", "line 2: `responses` must be a list of"),
        (ROWS[0] | {"correct": [True]}, "math", "line 2: `correct` must be a list with one label for each"),
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


def test_an_interrupted_file_leaves_the_earlier_one(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text("earlier")
    with pytest.raises(KeyboardInterrupt), written_at_once(path) as file:
        file.write("half a l")
        raise KeyboardInterrupt
    assert path.read_text() == "earlier"
    assert list(tmp_path.iterdir()) == [path]


@given(st.text())
def test_any_text_survives_as_a_line(text: str) -> None:
    assert json.loads(to_line({"text": text})) == {"text": text}


def answers(*pairs: tuple[bool, float | None], row: str = "0") -> list[Labelled]:
    return [Labelled(row, i, label, reward, "", "") for i, (label, reward) in enumerate(pairs)]


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
    assert box == Labelled("7", 0, True, 0.0, "1", "2/4")
    assert end.given.startswith("...x") and end.given.endswith("x end") and len(end.given) == 63
    assert labelled_answers({"responses": ["a"]}, [Score(reward=0.0)], index=0) == []
