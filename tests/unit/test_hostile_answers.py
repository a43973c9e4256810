"""Answers made to hang, kill or deceive the verifier: each gets an outcome, and none is right."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from rlstack.data.records import Outcome, Score
from rlstack.rewards.math import MathVerifier

LIMIT_S = 1.0
GOLD = "12"
BIDI, ZERO_WIDTH = "\u202e21\u202c", "1\u200b2"
NESTED = 10_000

ANSWERS = {
    "tower of powers": "9^{9^{9^{9}}}",
    "tower of powers in Python": "9**9**9**9",
    "huge power": "2^{10^{10}}",
    "factorial of a factorial": "((9999!)!)!",
    "huge binomial": r"\binom{10^{9}}{10^{8}}",
    "huge number": "1" * 1900,
    "small power of a huge number": "9" * 900 + "^{999999}",
    "endless sum": r"\sum_{n=1}^{10^{12}} \frac{1}{n^{n}}",
    "endless product": r"\prod_{n=1}^{10^{9}} n",
    "hard integral": r"\int_{0}^{\infty} \frac{\sin(x^{x^{x}})}{x^{x}+e^{x^{2}}} dx",
    "hard limit": r"\lim_{x \to 0} x^{x^{x^{x^{x}}}}",
    "wide expression": "+".join(f"x_{{{n}}}^{{{n}}}" for n in range(150)),
    "expansion": r"(a+b+c+d+e+f+g+h)^{400}-(h+g+f+e+d+c+b+a)^{400}",
    "large matrix": r"\begin{pmatrix}" + (" 1 &" * 30 + r" 1 \\") * 12 + r"\end{pmatrix}",
    "nested fractions": r"\frac{1}{" * 120 + "2" + "}" * 120,
    "nested roots": r"\sqrt{" * 200 + "2" + "}" * 200,
    "nested brackets": "(" * 900 + "1" + ")" * 900,
    "unbalanced brackets": "(" * 1900,
    "unbalanced fractions": r"\frac" * 300,
    "nested sets": r"\{" * 300 + r"\}" * 300,
    "bidi": BIDI,
    "bidi isolate": "\u206721\u2069",
    "zero width": ZERO_WIDTH,
    "combining characters": "1\u03362\u0336",
    "control characters": "1\0\x1b[2J2",
    "half of a surrogate pair": "12\ud800",
    "Arabic digits": "١٢",
    "bold digits": "𝟏𝟐",
    "circled digits": "①②",
    "superscript digits": "¹²",
    "a byte order mark": "\ufeff12",
    "zero width at the end": "12\u200d",
    "soft hyphen": "1\u00ad2",
    "no-break space": "1\u00a02",
    "line separators": "1\u20282",
    "text": r"\text{the answer that you expect}",
    "code": r"\text{__import__('os').system('kill 1')}",
    "assignment": "12=13",
    "any of many": "11,12,13",
    "12 or not": r"12 \text{ or } 13",
    "nothing": r"\,",
    "not a number": r"\frac{0}{0}",
}
RAW = {
    "nested boxes": r"\boxed{" * NESTED + "11" + "}" * (NESTED - 1),
    "unbalanced braces": r"The final answer is $\boxed{" + "{" * 50_000 + "12",
    "100 kB": "x" * 100_000,
    "100 kB of boxes": r"\boxed{1" * 12_500,
    "100 kB in a box": r"\boxed{" + "1+" * 50_000 + "1}",
    "100 kB of backslashes": r"\boxed{12" + "\\" * 100_000 + "}",
    "marker again and again": "The final answer is " * 5000,
}


TEXTS = {name: f"The final answer is $\\boxed{{{answer}}}$." for name, answer in ANSWERS.items()} | RAW


@pytest.fixture(scope="module")
def verifier() -> Iterator[MathVerifier]:
    with MathVerifier(workers=2, timeout_s=LIMIT_S) as shared:
        yield shared


@pytest.fixture(scope="module")
def scores(verifier: MathVerifier) -> dict[str, Score]:
    with ThreadPoolExecutor(1) as threads:
        found = threads.submit(verifier.score, [(text, GOLD) for text in TEXTS.values()])
        return dict(zip(TEXTS, found.result(timeout=len(TEXTS) * (LIMIT_S + 10)), strict=True))


@pytest.mark.parametrize("name", TEXTS)
def test_it_is_judged_and_never_right(scores: dict[str, Score], name: str) -> None:
    score = scores[name]
    assert score.reward in (None, 0.0)
    assert (score.reward is None) == (score.outcome is not Outcome.ok)


def test_afterwards_the_verifier_is_as_good_as_new(verifier: MathVerifier, scores: dict[str, Score]) -> None:
    items = [(f"The final answer is $\\boxed{{{answer}}}$.", GOLD) for answer in ("24/2", "7")]
    assert verifier.score(items) == [Score(reward=1.0), Score(reward=0.0)]


def test_what_reads_them_has_no_secret_to_give_away(monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = ("HF_TOKEN", "WANDB_API_KEY", "OPENAI_API_KEY", "RAY_AUTH_TOKEN", "MY_PASSWORD")
    for name in secrets:
        monkeypatch.setenv(name, "5ec2e7")
    monkeypatch.setenv("LC_TIME", "C")
    before = psutil.Process().children()
    with MathVerifier(workers=1, timeout_s=LIMIT_S):
        (worker,) = (child for child in psutil.Process().children() if child not in before)
        variables = worker.environ()
    assert "5ec2e7" not in variables.values()
    assert variables["LC_TIME"] == "C" and "PATH" in variables
