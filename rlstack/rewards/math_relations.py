r"""Equations, systems, intervals and vectors: answers that are put together from expressions. Pure.

Each function takes a gold answer and an answer in one notation (math_text.normalise) and `equal`, which
compares their parts, and returns whether they are equal, or None where they are not both of its kind.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

Equal = Callable[[str, str], bool]

LETTER = r"(?:[A-Za-z]|\\(?!text|frac|sqrt|sin|cos|tan|log|ln)[a-z]+)"
SUBSCRIPT = r"(?:_(?:\w|\{[^{}]*\}))?"
VARIABLE = re.compile(rf"{LETTER}{SUBSCRIPT}")
# What stands for a value without any calculation: x, a_n, f(x), P(A), AB, \angle ABC, \frac{dy}{dx}, |z|
NAME = re.compile(
    rf"{LETTER}{SUBSCRIPT}'*(?: ?\^ ?\{{?(?:\\prime|-1)\}}?)?(?: ?\( ?[\w, \\{{}}]*\))?"
    r"|m? ?\\(?:angle|triangle|overline|vec|hat|bar|det|operatorname) ?\{?[A-Za-z]{1,4}\}?"
    r"|[A-Z]{2,4}|[A-Za-z]{4,}(?: [A-Za-z]+)*|\\text ?\{[^{}]*\}|\|[A-Za-z]{1,2}\||\[[A-Z]{3,5}\]"
    r"|\\frac ?\{ ?d[^{}]{0,4}\}\{ ?d[^{}]{0,4}\}|\( ?[a-z](?: ?, ?[a-z])+ ?\)"
)
EQUALS = re.compile(r"(?<![<>!:\\])=(?!=)")
RELATION = re.compile(r"[<>]|\\(?:le|ge|ne|in|equiv|to|approx|mid)(?![A-Za-z])")
MAX_PARTS = 12
MAX_CHARS = 300  # of an interval or a vector


def sides(text: str) -> list[str]:
    """The sides of a chain of equations, one for a text that is none."""
    if RELATION.search(text) or len(split(text, ",;", words=("and", "or"))) > 1:
        return [text]
    return [side.strip() for side in EQUALS.split(text)]


def split(text: str, separators: str, words: Sequence[str] = ()) -> list[str]:
    """`text` at the separators, and at the words, that are in no brackets."""
    pattern = "|".join([f"[{separators}]", *(rf" {word} " for word in words), r"\\[{}]|[(){}\[\]]"])
    parts, depth, start = [], 0, 0
    for match in re.finditer(pattern, text):
        token = match.group()
        if token[-1] in "({[":
            depth += 1
        elif token[-1] in ")}]":
            depth -= 1
        elif depth == 0:
            parts.append(text[start : match.start()])
            start = match.end()
    return [part.strip() for part in (*parts, text[start:]) if part.strip()]


def equations(gold: str, answer: str, equal: Equal) -> bool | None:
    r"""An equation for a value: `k = 9 = 3^2` and `9 = k` are 9; `x^2 = 5` and `10 = 5` are not 5.

    All sides that are no names must equal the gold answer, so that a copied equation of the problem does not
    count for the answer. `\frac{dy}{dx} = 2x` as a gold answer is also `2x`.
    """
    given, written = sides(gold), sides(answer)
    if len(written) == 1 and len(given) == 2 and NAME.fullmatch(given[0]):
        return equal(given[1], answer)
    if len(given) == len(written) == 2:
        if NAME.fullmatch(written[1]) and not NAME.fullmatch(written[0]):
            written.reverse()
        if given[0].replace(" ", "") == written[0].replace(" ", "") and NAME.fullmatch(given[0]):
            return equal(given[1], written[1])
    if len(given) > 1 or not 1 < len(written) <= MAX_PARTS:
        return None
    values = [side for side in written if not NAME.fullmatch(side)] or written[-1:]
    return all(equal(gold, value) for value in values)


class Assignment(NamedTuple):
    name: str | None
    value: str


def systems(gold: str, answer: str, equal: Equal) -> bool | None:
    """Values of several variables, in any order: `y=2, x=1` is `x=1, y=2` and `(x, y) = (1, 2)`."""
    given, written = _assignments(gold), _assignments(answer)
    if given is None or written is None or not any(item.name for item in (*given, *written)):
        return None
    if len(given) != len(written):
        return None
    if all(item.name for item in (*given, *written)):
        return _matched(
            given, written, lambda one, other: one.name == other.name and equal(one.value, other.value)
        )
    named, bare = (given, written) if given[0].name else (written, given)
    names = [item.name for item in named if item.name]
    if len(names) != len(named) or any(item.name for item in bare):
        return None
    if len(set(names)) == 1:  # x=5 or x=-2, in any order
        return _matched(given, written, lambda one, other: equal(one.value, other.value))
    return names == sorted(names) and all(
        equal(one.value, other.value) for one, other in zip(given, written, strict=True)
    )


def _assignments(text: str) -> list[Assignment] | None:
    """The parts of a list of equations, of `(x, y) = (1, 2)`, or of a list of values in brackets or none."""
    if RELATION.search(text):
        return None
    both = [side.strip() for side in EQUALS.split(text)]
    if (
        len(both) == 2
        and (names := _tuple(both[0]))
        and (values := _tuple(both[1]))
        and len(names) == len(values)
    ):
        return [Assignment(name, value) for name, value in zip(names, values, strict=True)]
    items = _tuple(text) or split(text, ",;", words=("and", "or"))
    if not 1 < len(items) <= MAX_PARTS:
        return None
    found = []
    for item in items:
        name, *values = [side.strip() for side in EQUALS.split(item)]
        if len(values) > 1 or (values and not VARIABLE.fullmatch(name)):
            return None
        found.append(Assignment(name.replace(" ", ""), values[0]) if values else Assignment(None, name))
    return found


def _matched(given: list, written: list, same: Callable) -> bool:
    """Whether each of the one matches another one of the others."""
    left = list(written)
    for one in given:
        position = next((i for i, other in enumerate(left) if same(one, other)), None)
        if position is None:
            return False
        del left[position]
    return True


def _tuple(text: str) -> list[str] | None:
    r"""The components of `(a, b)`; None for anything else."""
    if not (text.startswith("(") and text.endswith(")")):
        return None
    if len(split(text, "\0")) != 1 or _closes_early(text):
        return None
    parts = split(text[1:-1], ",;")
    return parts if len(parts) > 1 else None


def _closes_early(text: str) -> bool:
    """Whether the first bracket is closed before the end of `text`."""
    depth = 0
    for position, character in enumerate(text):
        depth += (character in "([{") - (character in ")]}")
        if depth == 0:
            return position + 1 < len(text)
    return True


class Piece(NamedTuple):
    """An interval: its ends, and whether they belong to it."""

    low: str
    has_low: bool
    high: str
    has_high: bool


class Region(NamedTuple):
    """A union of intervals, as written: of which variable, if any, and whether as one pair of brackets."""

    variable: str | None
    pieces: list[Piece]
    is_pair: bool = False


INTERVAL = re.compile(
    r"([(\[\]])([^()\[\]]*(?:\([^()]*\)[^()\[\]]*)*),([^()\[\]]*(?:\([^()]*\)[^()\[\]]*)*)([)\]\[])"
)
BUILDER = re.compile(r"\\\{ ?(.+?) ?(?:\\mid|\\vert|\\colon|\||:) ?(.+)\\\}")
MEMBER = re.compile(rf"({VARIABLE.pattern}) ?\\in ?(.+)")
COMPARISON = re.compile(r"<|>|\\le(?![A-Za-z])|\\ge(?![A-Za-z])|\\ne(?![A-Za-z])")
REALS = r"\mathbb{R}"
LEAST, GREATEST = r"-\infty", r"\infty"
ALL = Piece(LEAST, False, GREATEST, False)


def regions(gold: str, answer: str, equal: Equal) -> bool | None:
    r"""Intervals, inequalities and sets: `x < 5`, `\{x \mid x < 5\}` and `]-\infty, 5[` are `(-\infty, 5)`.

    An inequality that still has to be solved is not the interval that solves it.
    """
    one, other = region(gold), region(answer)
    if one is None:
        return None
    if other is None:
        is_unsolved = one.variable is None and COMPARISON.search(answer) is not None
        return False if is_unsolved else None
    if one.is_pair and other.is_pair:
        return None
    if len(one.pieces) != len(other.pieces):
        return False
    if one.variable and other.variable and one.variable != other.variable:
        return False
    return _matched(one.pieces, other.pieces, lambda a, b: _same_piece(a, b, equal))


def _same_piece(one: Piece, other: Piece, equal: Equal) -> bool:
    if (one.has_low, one.has_high) != (other.has_low, other.has_high):
        return False
    return equal(one.low, other.low) and equal(one.high, other.high)


def region(text: str) -> Region | None:
    """The numbers that a normalised text describes with nothing left to solve; None for other texts."""
    if len(text) > MAX_CHARS:
        return None
    if match := BUILDER.fullmatch(text):
        variable, *domain = re.split(r" ?\\in ?", match[1])
        if domain not in ([], [REALS]) or not VARIABLE.fullmatch(variable):
            return None
        inner = region(match[2])
        return inner._replace(variable=None, is_pair=False) if inner and inner.variable == variable else None
    if match := MEMBER.fullmatch(text):
        inner = region(match[2])
        return Region(match[1].replace(" ", ""), inner.pieces) if inner and inner.variable is None else None
    if COMPARISON.search(text):
        return _inequalities(text)
    pieces = []
    for part in re.split(r" ?(?:\\cup|(?<=[)\]\[]) ?U(?= ?[(\[\]])) ?", text):
        if part.strip() == REALS:
            pieces.append(ALL)
        elif match := INTERVAL.fullmatch(part.strip()):
            left, low, high, right = match.groups()
            pieces.append(Piece(low.strip(), left == "[", high.strip(), right == "]"))
        else:
            return None
    return Region(
        None, pieces, is_pair=len(pieces) == 1 and pieces[0] != ALL and text[0] != "]" and text[-1] != "["
    )


def _inequalities(text: str) -> Region | None:
    r"""x < -1 or x > 3, x > 3 and x < 8, 2 < x \le 5, 5 > x, x \ne 3."""
    pieces: list[Piece] = []
    variables = set()
    for alternative in re.split(r",? or | ?\\lor ?| ?\\vee ?", text):
        low, has_low, high, has_high = ALL
        conditions = re.split(r",? and | ?\\land ?| ?\\wedge ?", alternative)
        for condition in conditions:
            found = _condition(condition.strip())
            if found is None:
                return None
            variable, parts = found
            variables.add(variable)
            if len(parts) > 1:
                if len(conditions) > 1:
                    return None
                pieces += parts
                break
            (part,) = parts
            if part.low != LEAST:
                if low != LEAST:
                    return None
                low, has_low = part.low, part.has_low
            if part.high != GREATEST:
                if high != GREATEST:
                    return None
                high, has_high = part.high, part.has_high
        else:
            pieces.append(Piece(low, has_low, high, has_high))
    return Region(variables.pop(), pieces) if len(variables) == 1 else None


def _condition(text: str) -> tuple[str, list[Piece]] | None:
    """The variable of one chain of inequalities, and what it says of it."""
    parts = [part.strip() for part in COMPARISON.split(text)]
    signs = [match.group() for match in COMPARISON.finditer(text)]
    if any(not part or "," in part or "=" in part for part in parts):
        return None
    where = [
        i
        for i, part in enumerate(parts)
        if VARIABLE.fullmatch(part) and part not in (r"\pi", r"\infty", "e", "i")
    ]
    if len(where) != 1 or len(parts) > 3 or (len(parts) == 3 and where != [1]):
        return None
    variable = parts[where[0]].replace(" ", "")
    if r"\ne" in signs:
        if len(parts) != 2:
            return None
        value = parts[1 - where[0]]
        return variable, [Piece(LEAST, False, value, False), Piece(value, False, GREATEST, False)]
    low, has_low, high, has_high = ALL
    for position, sign in enumerate(signs):
        value, is_right = (parts[position + 1], True) if position == where[0] else (parts[position], False)
        is_upper = (sign in ("<", r"\le")) == is_right
        is_closed = sign in (r"\le", r"\ge")
        if is_upper:
            high, has_high = value, is_closed
        else:
            low, has_low = value, is_closed
    if (
        len(signs) == 2
        and (low == LEAST or high == GREATEST)
        and (signs[0] in "<\\le") != (signs[1] in "<\\le")
    ):
        return None
    return variable, [Piece(low, has_low, high, has_high)]


MATRIX = re.compile(r"\\begin\{[pbBvs]?(?:small)?matrix\}(.*?)\\end\{[pbBvs]?(?:small)?matrix\}")
ANGLES = re.compile(r"\\langle ?(.+?) ?\\rangle|<([^<>]+,[^<>]+)>")
UNITS = "ijk"
TERM = re.compile(r" ?([-+]?) ?((?:\\[a-z]++|[\d./{}()^a-hl-z ])*?) ?(?:\\cdot )?([ijk])(?![A-Za-z])")


class Vector(NamedTuple):
    """How a vector is written (column, row, tuple, angles or units), and its components."""

    form: str
    components: list[str]


def vectors(gold: str, answer: str, equal: Equal) -> bool | None:
    r"""Vectors in different forms: a column, `(1, 2)`, `\langle 1, 2 \rangle`, `\mathbf{i} + 2\mathbf{j}`."""
    one, other = vector(gold), vector(answer)
    if one is None or other is None:
        return None
    if (one.form == other.form and one.form != "angles") or {one.form, other.form} == {"row", "column"}:
        return None
    size = max(len(one.components), len(other.components))
    first, second = (
        v.components + ["0"] * (size - len(v.components)) if v.form == "units" else v.components
        for v in (one, other)
    )
    return len(first) == len(second) and all(equal(a, b) for a, b in zip(first, second, strict=True))


def vector(text: str) -> Vector | None:
    """The vector that a normalised text is; None for other texts."""
    if len(text) > MAX_CHARS:
        return None
    if match := MATRIX.fullmatch(text):
        rows = [row.strip() for row in match[1].split(r"\\") if row.strip()]
        if len(rows) == 1 and "&" in rows[0]:
            return Vector("row", [part.strip() for part in rows[0].split("&")])
        return Vector("column", rows) if len(rows) > 1 and "&" not in match[1] else None
    if match := ANGLES.fullmatch(text):
        return Vector("angles", split(match[1] or match[2], ","))
    if components := _tuple(text):
        return Vector("tuple", components)
    return Vector("units", components) if (components := _unit_components(text)) else None


def _unit_components(text: str) -> list[str] | None:
    """The coefficients of i, j and k: of `3i - 5j` 3 and -5."""
    found: dict[str, str] = {}
    end = 0
    for match in _terms(text):
        sign, coefficient, unit = match.groups()
        if unit in found or (end and not sign):
            return None
        found[unit] = sign.replace("+", "") + (coefficient.strip() or "1")
        end = match.end()
    if end != len(text) or ("j" not in found and not found.keys() >= {"i", "k"}):
        return None
    return [found.get(unit, "0") for unit in (UNITS if "k" in found else UNITS[:2])]


def _terms(text: str) -> Iterator[re.Match[str]]:
    position = 0
    while match := TERM.match(text, position):
        yield match
        position = match.end()
