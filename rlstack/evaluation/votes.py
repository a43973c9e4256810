"""What an answer votes for in a majority vote. Pure."""

from __future__ import annotations

from rlstack.data.boxed import boxed_answer
from rlstack.rewards.math_text import normalise


def vote_of(text: str) -> str | None:
    """The last boxed answer of `text` in one notation for all; None without one.

    Votes are equal by notation (the verifier's: \\dfrac as \\frac, 1/2 as \\frac{1}{2}, 12\\,345 as 12345, no
    units, no spaces), not by value: comparing every two answers of a prompt by value takes n^2 / 2 runs of
    sympy, and comparing with the gold answer would tell the vote which answers to count together. So 0.25 and
    1/4 are two votes, and the figure can only be too low for it.
    """
    from latex2sympy2_extended.math_normalization import NormalizationConfig, normalize_latex

    answer = normalise(boxed_answer(text) or "")
    if not answer:
        return None
    config = NormalizationConfig(units=True, malformed_operators=True, nits=True, boxed="none")
    return "".join(normalize_latex(answer, config).split()) or None
