"""Figures that carry the arithmetic they came from, so that a reader can check them by hand."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import CodeType

_FUNCTIONS = {"ceil": math.ceil, "floor": math.floor, "min": min, "max": max}
_NAME = re.compile(r"\b[a-z]\w*")
_SCALES = {"B": (1e9, "GB"), "FLOP": (1e12, "TFLOP"), "FLOP/token": (1e9, "GFLOP/token")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A number, its unit, and the formula that gives it from `inputs`."""

    name: str
    value: float
    unit: str  # B, s, tokens, ...; none where it is ""
    formula: str
    inputs: Mapping[str, float]

    @property
    def with_numbers(self) -> str:
        """The formula with the inputs' numbers in the place of their names."""
        return _NAME.sub(lambda name: self._number(name[0]), self.formula)

    @property
    def text(self) -> str:
        """The value for people: bytes in GB (10^9)."""
        scale, unit = _SCALES.get(self.unit, (1.0, self.unit))
        return f"{number_text(self.value / scale, exact=unit == 'elements')} {unit}".rstrip()

    def _number(self, name: str) -> str:
        return name if name in _FUNCTIONS else number_text(self.inputs[name], exact=True)


def derive(name: str, unit: str, formula: str, **inputs: float) -> Figure:
    """The figure that `formula` gives: what is printed is what is computed.

    formula: Python arithmetic over names of `inputs`, with ceil, floor, min and max; written in this package,
        never given by a user.
    """
    code, names = _compiled(formula)
    value = eval(code, {"__builtins__": {}, **_FUNCTIONS}, dict(inputs))
    used = {key: inputs[key] for key in names}
    return Figure(name=name, value=value, unit=unit, formula=formula, inputs=used)


@cache
def _compiled(formula: str) -> tuple[CodeType, tuple[str, ...]]:
    """And the names of its inputs: a search derives the same figures for thousands of layouts."""
    names = tuple(key for key in _NAME.findall(formula) if key not in _FUNCTIONS)
    return compile(formula, "<formula>", "eval"), names


def total(name: str, parts: Sequence[Figure]) -> Figure:
    """The sum of figures of one unit."""
    (unit,) = {part.unit for part in parts}
    inputs = {re.sub(r"\W", "_", part.name.lower()): part.value for part in parts}
    return derive(name, unit, " + ".join(inputs), **inputs)


def number_text(value: float, *, exact: bool = False) -> str:
    """Whole numbers whole where `exact`; others to four digits."""
    if float(value).is_integer() and (exact or abs(value) < 10_000):
        return f"{int(value):,}"
    if 0.001 <= abs(value) < 10_000:
        return f"{value:.4g}"
    return f"{value:,.0f}" if 10_000 <= abs(value) < 1e9 else f"{value:.3e}"
