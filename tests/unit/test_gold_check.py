"""Gold answers against themselves: what nothing in a box could equal is told, above a share refused."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlstack.config.load import load_config
from rlstack.config.schema import Reward, RunConfig
from rlstack.data.gold import read_gold
from rlstack.data.records import Outcome, Prompt, Score
from rlstack.errors import ConfigError
from rlstack.rewards import gold_check
from rlstack.rewards.gold_check import find_flaws, gold_problems, refuse_unverifiable
from rlstack.rewards.gold_flaws import flaw
from rlstack.rewards.math import MathScorer
from rlstack.rewards.scorer import Question
from rlstack.running import check

ROOT = Path(__file__).parents[2]
QUICKSTART = ROOT / "configs" / "quickstart.yaml"
SHARED = ROOT.parent / "shared" / "data"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "rlstack" / "golds"


class Played:
    """In place of the verifier's processes: reads what has no question mark."""

    asked: list[str]

    def __init__(self, workers: int, timeout_s: float) -> None:
        self.asked = []
        played.append(self)

    def __enter__(self) -> Played:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def check_golds(self, golds: list[str]) -> list[Score]:
        self.asked += golds
        return [_verdict(gold) for gold in golds]


def _verdict(gold: str) -> Score:
    if "endless" in gold:
        return Score(reward=None, outcome=Outcome.timeout)
    return Score(reward=float("?" not in gold))


played: list[Played] = []


@pytest.fixture
def verifiers(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Played]]:
    """Those that have been started."""
    monkeypatch.setattr(gold_check, "MathVerifier", Played)
    played.clear()
    yield played


WHOLE = [
    *("42", "-0.5", "x^2+1", r"\frac{1}{2}", r"\text{Tuesday}", "east", "B", "(B) 12", r"\text{(B) }12"),
    *(
        "x=2 or x=3",
        r"x \in [-2,7]",
        "AB = CD",
        "sin(x) + cos(x) + tan(x)",
        "No real solutions",
        "the red one",
    ),
    *("12 cubic centimeters per second", r"5 \text{ more apples than he had then}", r"\{1, 2\}", "[1, 2]"),
    *(
        r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}",
        r"\text{all real numbers except for the number } 2",
        "12个苹果",
    ),
]
FLAWED = {
    "Add 3 and 4.\nThat is 7": "a line break",
    '{"a": "5"': "JSON",
    r"\frac{1}{2": "braces",
    "5}": "braces",
    "x" * 3000: "too long",
    "It takes 7 hours to fill the pool": "prose",
    "So x equals 7 here": "prose",
    "7 is how many there are": "prose",
    "he sold $5 worth of lemonade": "prose",
    "one adds the two sides and sees that both agree": "prose",
    "所以小明一共有5个苹果": "prose",
}


@pytest.mark.parametrize("gold", WHOLE)
def test_values_and_short_texts_have_no_flaw(gold: str) -> None:
    assert flaw(gold) is None


@pytest.mark.parametrize("gold", FLAWED, ids=lambda gold: gold[:20])
def test_what_no_box_could_hold_is_told(gold: str) -> None:
    assert FLAWED[gold] in (flaw(gold) or "")


def test_the_verifier_reads_values_and_words_and_not_scraps() -> None:
    scraps = ["???", r"4\pi r^", "-", "..."]
    assert find_flaws([*WHOLE, *scraps], Reward()) == dict.fromkeys(scraps, gold_check.UNREAD)


def test_plain_numbers_need_no_process(verifiers: list[Played]) -> None:
    assert find_flaws(["42", "-1/2", "1,000", "0.25", "17/12"], Reward()) == {}
    assert not verifiers
    find_flaws(["1/0", "x"], Reward())
    assert verifiers[0].asked == ["1/0", "x"]


def test_distinct_golds_are_checked_once_and_remembered(verifiers: list[Played], cache: Path) -> None:
    golds = ["x", "?", "y", "x", "?"]
    assert find_flaws(golds, Reward()) == {"?": gold_check.UNREAD}
    assert verifiers[0].asked == ["?", "x", "y"]
    assert find_flaws(reversed(golds), Reward()) == {"?": gold_check.UNREAD}
    assert len(verifiers) == 1
    assert find_flaws([*golds, "z"], Reward()) == {"?": gold_check.UNREAD}
    assert len(verifiers) == 2
    for path in cache.iterdir():
        path.write_text('{"unverifiable": [99]}')
    assert find_flaws(golds, Reward()) == {"?": gold_check.UNREAD}


def test_what_is_out_of_time_is_tried_again(verifiers: list[Played]) -> None:
    for _ in range(2):
        assert find_flaws(["endless", "x"], Reward()) == {"endless": gold_check.UNREAD}
    assert len(verifiers) == 2


def test_a_cache_that_cannot_be_written_is_no_error(
    verifiers: list[Played], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert find_flaws(["x", "?"], Reward()) == {"?": gold_check.UNREAD}


def test_a_check_that_takes_long_says_how_far_it_is(
    verifiers: list[Played], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gold_check, "CHECKED_TOGETHER", 2)
    monkeypatch.setattr(gold_check, "MOMENT_S", 0.0)
    find_flaws(["a", "b", "c", "d", "e"], Reward())
    assert "gold answers 5/5" in capsys.readouterr().out


def prompts_with(answers: list[str]) -> list[Prompt]:
    return [
        Prompt(task="fractions", row=row, problem="a", answer=answer, token_ids=(1,))
        for row, answer in enumerate(answers)
    ]


def config_with(*overrides: str) -> RunConfig:
    return load_config(QUICKSTART, overrides)


def test_a_task_with_too_many_is_refused_and_one_with_few_warned_of(
    verifiers: list[Played], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    prompts = {"data.tasks[0]": prompts_with(["x"] * 93 + ["?"] * 7)}
    (problem,) = gold_problems(config_with(), prompts)
    assert "data.tasks[0].path = " in problem and "7 of 100 rows" in problem
    assert "row 93 (from 0) has '?', no value" in problem and "row 97" in problem and "row 98" not in problem
    assert "data.tasks[0].answer_field" in problem and "data.max_unverifiable = 0.05" in problem
    assert not caplog.records
    assert gold_problems(config_with("data.max_unverifiable=0.07"), prompts) == []
    assert "7 of 100 rows" in caplog.text and "data.tasks[0].answer_field" in caplog.text


def test_one_of_several_golds_is_enough(verifiers: list[Played]) -> None:
    prompts = {"data.tasks[0]": prompts_with([read_gold(["?", "x"]), read_gold(["?", "??"])])}
    (problem,) = gold_problems(config_with(), prompts)
    assert "1 of 2 rows" in problem and "row 1 (from 0)" in problem


def test_other_rewards_compare_nothing(verifiers: list[Played]) -> None:
    config = config_with("data.tasks[0].reward=my_rewards:brevity")
    assert gold_problems(config, {"data.tasks[0]": prompts_with(["?"])}) == [] and not verifiers


def test_an_evaluation_is_refused_alike(verifiers: list[Played]) -> None:
    with pytest.raises(ConfigError, match=r"^evaluation\.tasks\[0\]\.path = .*: 1 of 1 rows"):
        refuse_unverifiable(config_with(), prompts_with(["?"]))


def test_a_run_on_whole_solutions_is_refused_before_anything_is_there(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"problem": "1+1", "answer": "We add one to one.\\nThat makes two."}\n' * 3)
    config = config_with(f"data.tasks[0].path={path}", f"run.dir={tmp_path / 'runs'}")
    with pytest.raises(ConfigError, match=r"3 of 3 rows .* row 0 \(from 0\) has 'We add.*, a line break"):
        check(config)
    assert not (tmp_path / "runs").exists()


def test_any_of_several_gold_answers_is_right() -> None:
    def paper(answer: str) -> str:
        return f"So: The final answer is $\\boxed{{{answer}}}$. I hope it is correct."

    question = Question(
        problem="a", answer=read_gold(["1/2", "x"]), responses=(*map(paper, ["0.5", "x", "y"]), "2")
    )
    scorer = MathScorer(1, 5.0)
    try:
        assert [score.reward for score in scorer.score([question])[0]] == [1.0, 1.0, 0.0, 0.0]
        if (SHARED / "gsm8k_test.jsonl").exists():
            assert_right_answers_to_gsm8k(scorer)
    finally:
        scorer.close()


def assert_right_answers_to_gsm8k(scorer: MathScorer) -> None:
    """The rows as they are published: the solution, and the answer after ####."""
    lines = (SHARED / "gsm8k_test.jsonl").read_text(encoding="utf-8").splitlines()[:300]
    rows = [json.loads(line) for line in lines]
    questions = [
        Question(
            problem=row["problem"],
            answer=read_gold(f"{row['solution']}\n#### {row['answer']}"),
            responses=(f"The final answer is $\\boxed{{{row['answer']}}}$. I hope it is correct.",),
        )
        for row in rows
    ]
    assert [scores[0].reward for scores in scorer.score(questions)] == [1.0] * 300
