r"""Numbers as they are written: digit groups, repeating decimals, mixed numbers, powers of ten. Pure."""

from __future__ import annotations

import re
from decimal import Decimal
from fractions import Fraction
from typing import NamedTuple

MAX_EXPONENT = 400  # of ten, beyond which a power stays a power
SEPARATORS = (r"\\,", r"\\ ", r"\\;", r"\\:", r"~", r" ", r"\{,\}", "'")
# 12\,345, 12 345: groups of three, all with one separator; `1,\,2` and `100,\,200` are lists.
GROUPS = tuple(
    re.compile(rf"(?a)(?<![\d.,_^A-Za-z\\])\d{{1,3}}(?:{sep}\d{{3}})+(?!{sep}?\d)") for sep in SEPARATORS
)
DECIMAL_GROUPS = re.compile(
    r"(?a)(?<=\.)\d{3}(?:(?:\\,|\{,\})\d{3})*(?:\\,|\{,\})\d{1,3}(?!\d)"
)  # 0.123\,456
# 1,234,567 or, as in India, 1,23,456: only where it is the one number there is, with no other comma.
COMMAS = re.compile(
    r"(?a)([^\d,()\[\]{}]*)(\d{1,3}(?:,\d{3})+|\d{1,2}(?:,\d{2})+,\d{3})((?:\.\d+)?(?!\d)[^,]*)"
)

SCIENTIFIC = re.compile(r"(?a)(?<![\w.])(\d+(?:\.\d+)?)[eE]([-+]?\d{1,4})(?![\w.])")  # 1e-05
LEADING_POINT = re.compile(r"(?a)(?<![\w.)}])\.(?=\d)")  # .5
TRAILING_ZEROS = re.compile(r"(?a)(?<![\w.])(\d+)\.(?:(\d*[1-9])0+|0+)(?![\d.])")  # 14.0, 2.50
ONE_BEFORE_I = re.compile(r"(?a)(?<![\w.}^])1 ?(?=i(?![A-Za-z]))")  # 1i
DECIMAL = r"(?a)(?<![\w.,])(\d*)\.(\d*)"
REPEATING = (
    re.compile(DECIMAL + r"\\(?:overline|bar|overbar) ?\{?(\d+)\}?"),  # 0.1\overline{6}
    re.compile(DECIMAL + r"\((\d+)\)"),  # 0.1(6)
    re.compile(DECIMAL + r"\\dot ?\{?(\d)\}?(?:(\d*)\\dot ?\{?(\d)\}?)?"),  # 0.\dot{1}2\dot{3}
    # 0.1666..., 0.2727...: the digits before the dots at least three times, or two of them twice.
    re.compile(r"(?a)(?<![\w.,])(\d*)\.(\d{0,20}?)(?:(\d)\3{2,20}|(\d{2,6})\4{1,20})(?:\.\.\.|\\[lc]?dots)"),
)
MIXED = re.compile(
    r"(?a)(?<![\w.}^)])(\d{1,9}) ?(?:(?<= )(\d{1,9})/(\d{1,9})(?![\w./])|\\frac\{(\d{1,9})\}\{(\d{1,9})\})"
)
MODULO = re.compile(r"(?a)(\d{1,300}) ?(?:\\bmod|\\mod|mod) ?(\d{1,300})")  # 12 \bmod 5

VALUE = re.compile(
    r"(?a)(?P<sign>[-+]?) ?(?:\\frac\{ ?(?P<minus>-?) ?(?P<over>\d+) ?\}\{ ?(?P<under>\d+) ?\}"
    r"|\(?(?P<numerator>\d+)\)? ?/ ?\(?(?P<denominator>\d+)\)?"
    r"|(?P<decimal>\d+(?:\.\d+)?)(?: ?(?:\\times|\\cdot) ?10 ?\^ ?\{? ?(?P<power>-?\d{1,4}) ?\}?)?"
    r"|10 ?\^ ?\{? ?(?P<ten>-?\d{1,4}) ?\}?)"
)


class Number(NamedTuple):
    """A rational number, and whether it was written with a decimal point, so that it may be rounded."""

    value: Fraction
    rounded: bool


def without_digit_groups(text: str) -> str:
    r"""`text` with its numbers' digits together: `12\,345`, `12 345` and `12{,}345` as `12345`."""
    if not any(character.isdigit() for character in text):
        return text
    text = text.replace(r",\!", ",")
    for pattern in (*GROUPS, DECIMAL_GROUPS):
        text = pattern.sub(lambda match: re.sub(r"\D", "", match.group()), text)
    if match := COMMAS.fullmatch(text):
        before, number, after = match.groups()
        return before + number.replace(",", "") + after
    return text


def plain_numbers(text: str) -> str:
    r"""`text` with each number in one notation: `1e-05` as `0.00001`, `2 1/4` as `\frac{9}{4}`."""
    if not any(character.isdigit() for character in text):
        return text
    text = LEADING_POINT.sub("0.", text)
    text = SCIENTIFIC.sub(_written_out, text)
    for pattern in REPEATING:
        text = pattern.sub(_repeating, text)
    text = TRAILING_ZEROS.sub(lambda match: match[1] + ("." + match[2] if match[2] else ""), text)
    text = ONE_BEFORE_I.sub("", MIXED.sub(_mixed, text))
    if (match := MODULO.fullmatch(text)) and int(match[2]):
        return str(int(match[1]) % int(match[2]))
    return text.removeprefix("+")


def number(text: str) -> Number | None:
    r"""The number that `text` is: `-3`, `2.5`, `\frac{1}{3}`, `1.6 \times 10^{-19}`; None for other texts."""
    match = VALUE.fullmatch(text)
    if match is None:
        return None
    part = match.groupdict()
    sign = -1 if (part["sign"] == "-") != (part["minus"] == "-") else 1
    over, under = part["over"] or part["numerator"], part["under"] or part["denominator"]
    if over is not None:
        return Number(sign * Fraction(int(over), int(under)), False) if int(under) else None
    power = int(part["power"] or part["ten"] or 0)
    if abs(power) > MAX_EXPONENT:
        return None
    digits = part["decimal"] or "1"
    return Number(sign * Fraction(digits) * Fraction(10) ** power, "." in digits)


def equal_numbers(one: Number, other: Number) -> bool:
    """Whether two numbers are one, to six decimals and three digits where one of them has a decimal point."""
    if one.value == other.value:
        return True
    if not (one.rounded or other.rounded):
        return False
    difference = abs(one.value - other.value)
    return round(one.value, 6) == round(other.value, 6) and difference * 1000 <= abs(one.value)


def _written_out(match: re.Match[str]) -> str:
    mantissa, exponent = match.groups()
    if abs(int(exponent)) > MAX_EXPONENT:
        return match.group()
    return format(Decimal(mantissa).scaleb(int(exponent)), "f")


def _repeating(match: re.Match[str]) -> str:
    whole, fixed, *period = (group or "" for group in match.groups())
    repeated = "".join(period)
    if not repeated:
        return match.group()
    numerator = int(whole + fixed + repeated) - int((whole + fixed) or 0)
    value = Fraction(numerator, (10 ** len(repeated) - 1) * 10 ** len(fixed))
    return _fraction(value)


def _mixed(match: re.Match[str]) -> str:
    whole, numerator, denominator = (int(group) for group in match.groups() if group is not None)
    if not 0 < numerator < denominator:
        return match.group()
    return _fraction(whole + Fraction(numerator, denominator))


def _fraction(value: Fraction) -> str:
    if value.denominator == 1:
        return str(value.numerator)
    return rf"\frac{{{value.numerator}}}{{{value.denominator}}}"
