r"""Whether an answer is the gold answer: as text, by its kind, and by math-verify at last.

Unbounded in time: for the process in rewards.math_worker, which ends itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

from rlstack.rewards import math_kinds as kinds
from rlstack.rewards import math_relations as relations
from rlstack.rewards.math_numbers import equal_numbers, number
from rlstack.rewards.math_text import compact, normalise

MAX_DEPTH = 4  # of answers that are put together from others
PRECISION = 30  # digits of a value
MIN_CLOSENESS = 1e-9  # relative, of two values that are calculated
MIN_FLOAT_CLOSENESS = 1e-3  # relative, where one is a decimal number: math-verify compares six decimals
IMAGINARY = re.compile(r"(?<![A-Za-z\\])i(?![A-Za-z])")
# What math-verify takes for a sign of complex numbers: symbols are then not real.
COMPLEX = re.compile(
    r"\\mathbb\{C\}|\\imath|\\det|(?:\\operatorname|\\text)\{(?:tr|rank|Re|Im)\}|\\(?:arg|Re|Im)\{"
)

Kind = Callable[[str, str], bool | None]
KINDS: tuple[Kind, ...] = (kinds.choices, kinds.words, kinds.bases, kinds.times, kinds.congruences)
COMPOSED = (relations.equations, relations.regions, relations.systems, relations.vectors)

normalised = lru_cache(maxsize=16384)(normalise)


def is_equal(gold: str, answer: str) -> bool:
    """Whether the LaTeX expression `answer` equals `gold`; unbounded in time.

    Raises:
        ValueError: `gold` says nothing, so that no answer could be right.
        Exception: whatever sympy raises, where it could not compare anything.
    """
    gold, answer = normalised(gold), normalised(answer)
    if not gold:
        raise ValueError("the gold answer is empty")
    return _equal(gold, answer, MAX_DEPTH)


def is_value(gold: str) -> bool:
    """Whether `gold` is read as a value, as words or as another kind of answer; unbounded in time.

    Any text equals itself as a text, so that `is_equal` does not tell. Raises whatever sympy raises.
    """
    gold = normalised(gold)
    if not gold:
        return False
    if number(gold) is not None or any(kind(gold, gold) is not None for kind in KINDS):
        return True
    part = partial(_equal, depth=MAX_DEPTH - 1)
    if any(composed(gold, gold, part) for composed in COMPOSED):
        return True
    return _parsed(gold, bool(COMPLEX.search(gold) or IMAGINARY.search(gold)))[0] is not None


def _equal(gold: str, answer: str, depth: int) -> bool:
    if not answer:
        return False
    if compact(gold) == compact(answer):
        return True
    one, other = number(gold), number(answer)
    if one is not None and other is not None:
        return equal_numbers(one, other)
    for kind in KINDS:
        if (verdict := kind(gold, answer)) is not None:
            return verdict
    if depth:
        part = partial(_equal, depth=depth - 1)
        for composed in COMPOSED:
            if (verdict := composed(gold, answer, part)) is not None:
                return verdict
    return _equal_by_math_verify(gold, answer)


def _equal_by_math_verify(gold: str, answer: str) -> bool:
    """Each pair of readings in a try, so that one that raises does not end the others."""
    from math_verify import verify

    is_complex = bool(COMPLEX.search(gold + answer) or IMAGINARY.search(gold) or IMAGINARY.search(answer))
    error: Exception | None = None
    was_compared = False
    for one, other in zip(_parsed(gold, is_complex), _parsed(answer, is_complex), strict=True):
        if one is None or other is None:
            continue
        try:
            if verify(one, other, timeout_seconds=None, raise_on_error=True) and _is_close(one, other):
                return True
            was_compared = was_compared or not isinstance(one, str)
        except Exception as raised:
            error = raised
    if error is not None and not was_compared:
        raise error
    return False


@lru_cache(maxsize=16384)  # parsing takes most of the time, and the answers to different problems recur
def _parsed(text: str, is_complex: bool) -> tuple[Any, str]:
    """What math-verify reads in `text`: an expression, None where it cannot, and the text in its notation."""
    from latex2sympy2_extended.latex2sympy2 import latex2sympy
    from latex2sympy2_extended.math_normalization import normalize_latex

    latex = normalize_latex(text, _notation())
    for candidate in dict.fromkeys((latex, _last_side(latex))):
        try:
            expression = latex2sympy(candidate, is_real=not is_complex, normalization_config=None)
            return (_with_imaginary_unit(expression) if is_complex else expression), latex
        except Exception:
            continue
    return None, latex


@lru_cache(maxsize=1)
def _notation() -> Any:
    from latex2sympy2_extended.math_normalization import NormalizationConfig

    return NormalizationConfig(basic_latex=True, units=True, malformed_operators=True, nits=True, boxed="all")


def _last_side(latex: str) -> str:
    """The last side of a chain of equations, as math-verify reads one that it cannot read as a whole."""
    parts = relations.EQUALS.split(latex)
    return parts[-1] if len(parts) > 2 and "," not in latex and ";" not in latex else latex


def _with_imaginary_unit(expression: Any) -> Any:
    """`expression` with the imaginary unit in place of the symbol i."""
    import sympy

    try:
        return expression.xreplace({sympy.Symbol("i", real=False): sympy.I})
    except Exception:  # an interval with complex ends
        return expression


def _is_close(gold: Any, answer: Any) -> bool:
    """Whether two values that math-verify takes for equal are so relative to their size.

    It compares differences with zero, and takes 1/51! for 1/52!. True where there are no two values.
    """
    import sympy

    for value in (gold, answer):
        if not isinstance(value, sympy.Expr) or value.free_symbols:
            return True
        if value.has(sympy.UnevaluatedExpr, sympy.Sum, sympy.Product, sympy.Integral, sympy.Limit):
            return True
    gold, answer = gold.doit(), answer.doit()
    if gold == answer:
        return True
    one, other = gold.evalf(PRECISION), answer.evalf(PRECISION)
    if not (one.is_number and other.is_number):
        return True
    bound = MIN_FLOAT_CLOSENESS if gold.has(sympy.Float) or answer.has(sympy.Float) else MIN_CLOSENESS
    return bool(abs(one - other) <= bound * abs(one))
