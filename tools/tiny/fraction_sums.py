"""The verifiable task: sums and differences of two fractions, and the demonstrations that the seed learns."""

from __future__ import annotations

import hashlib
import itertools
import math
import random
from typing import NamedTuple

from tiny_tokenizer import ANSWER_PREFIX, ANSWER_SUFFIX

from rlstack.data.templates import MATH, render

NUMERATORS = range(1, 8)
DENOMINATORS = range(2, 8)


class FractionSum(NamedTuple):
    """`a/b + c/d`, or `-` in place of `+`."""

    a: int
    b: int
    operator: str
    c: int
    d: int

    @property
    def problem(self) -> str:
        return f"{self.a}/{self.b}{self.operator}{self.c}/{self.d}"

    @property
    def answer(self) -> str:
        """Reduced, and without a denominator of 1."""
        return reduced(self.combine(self.a * self.d, self.c * self.b), self.b * self.d)

    @property
    def held_out(self) -> bool:
        """One problem in ten, by its text: independent of any seed or order."""
        return int(hashlib.md5(self.problem.encode(), usedforsecurity=False).hexdigest(), 16) % 10 == 0

    @property
    def prompt(self) -> str:
        return render(MATH, self.problem)

    def combine(self, left: int, right: int) -> int:
        return left + right if self.operator == "+" else left - right


def reduced(numerator: int, denominator: int) -> str:
    divisor = math.gcd(numerator, denominator)
    numerator, denominator = numerator // divisor, denominator // divisor
    return str(numerator) if denominator == 1 else f"{numerator}/{denominator}"


def all_problems(*, held_out: bool) -> list[FractionSum]:
    """Every problem of one side of the split, in a fixed order; 3528 in both sides together."""
    grid = itertools.product(NUMERATORS, DENOMINATORS, "+-", NUMERATORS, DENOMINATORS)
    problems = (FractionSum(*values) for values in grid)
    return [problem for problem in problems if problem.held_out == held_out]


def demonstration(
    rng: random.Random, problem: FractionSum, *, direct: float, slip: float, reduce: float
) -> str:
    """An answer in one of two styles, with errors on request.

    direct: probability of the bare final answer instead of the worked one.
    slip: probability that any one arithmetic step is wrong; the steps after it carry the error on.
    reduce: probability that a reducible answer is reduced.
    """
    a, b, operator, c, d = problem
    left, right = slipped(rng, a * d, slip), slipped(rng, c * b, slip)
    numerator = slipped(rng, problem.combine(left, right), slip)
    denominator = slipped(rng, b * d, slip)
    if denominator <= 0:
        denominator = b * d
    answer = f"{numerator}/{denominator}"
    if math.gcd(numerator, denominator) > 1 and rng.random() < reduce:
        answer = reduced(numerator, denominator)
    final = f"{ANSWER_PREFIX}{answer}{ANSWER_SUFFIX}"
    if rng.random() < direct:
        return final
    steps = f"{a}*{d}={left},{c}*{b}={right},{left}{operator}{right}={numerator},{b}*{d}={denominator}"
    return f"{steps}. {final}"


def slipped(rng: random.Random, value: int, probability: float) -> int:
    """The value, or with this probability a wrong one: mostly a near miss, at times any number."""
    if rng.random() >= probability:
        return value
    kind = rng.random()
    if kind < 0.5:
        return value + rng.choice([-1, 1])
    if kind < 0.8:
        return value + rng.choice([-10, 10, -2, 2])
    return rng.randint(1, 81)
