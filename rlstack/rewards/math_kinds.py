r"""Kinds of answers that are no expressions: choices, words, times, bases, congruences. Pure.

Each function takes a gold answer and an answer in one notation (math_text.normalise) and returns whether they
are equal, or None where they are not both of its kind.
"""

from __future__ import annotations

import re
from math import gcd
from typing import NamedTuple

from rlstack.rewards.math_numbers import number

CHOICE = re.compile(r"[A-J]")
# (B), B., B) 12, Option B, B: 12, (B) 12
DECORATED = re.compile(
    r"(?:(?:the )?(?:correct )?(?:option|choice|answer)(?: is)?:? ?)?"
    r"(?:\(([A-J])\)|([A-J])(?= ?[).:]|$) ?\)?)[.:]? ?(.*)",
    re.IGNORECASE | re.ASCII,
)
ANOTHER = re.compile(r"(?<![A-Za-z\\])[A-J](?![A-Za-z])|(?<![A-Za-z])(?:or|and|not)(?![A-Za-z])")

WORDS = re.compile(r"[A-Za-z]{2,}(?:[ '-][A-Za-z]+)*")
PLURAL = re.compile(r"s$")

DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
BASES = {
    "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10,
    "eleven": 11, "twelve": 12, "sixteen": 16, "binary": 2, "octal": 8, "decimal": 10, "hex": 16,
}  # fmt: skip
BASED = re.compile(
    r"\(?([0-9A-F]{1,60})\)? ?"
    r"(?:_ ?\{? ?(?:\\text ?\{)? ?\(?(?:base ?\}? ?)?(\w+) ?\)?\}? ?\}?|(?:in )?base[ -](\w+))",
    re.IGNORECASE | re.ASCII,
)

TIME = re.compile(
    r"(\d{1,2}) ?: ?([0-5]\d)(?: ?: ?([0-5]\d))? ?"
    r"(?:\\text ?\{)? ?(?:([ap])\.? ?m\.?|(noon|midnight))?\}?(?: o'?clock)?",
    re.IGNORECASE | re.ASCII,
)

CONGRUENCE = re.compile(
    r"(?a)(?:([^=]+?) ?(?:\\equiv|=|≡) ?)?(-?\d{1,300})"
    r" ?\\?p?\(?(?:\\pmod|\\bmod|\\mod|mod) ?\{?(\d{1,300})\}?\)?"
)


def choices(gold: str, answer: str) -> bool | None:
    r"""One of several choices, however decorated: `\textbf{(B)}\ 12` is `B`, `C or D` is not `C`."""
    letter = _choice(gold)
    if letter is None:
        return None
    chosen = _choice(answer)
    return None if chosen is None else chosen == letter


def _choice(text: str) -> str | None:
    if CHOICE.fullmatch(text):
        return text
    match = DECORATED.fullmatch(text)
    if match is None or ANOTHER.search(match[3]):
        return None
    return (match[1] or match[2]).upper()


def words(gold: str, answer: str) -> bool | None:
    """Words and strings of letters in order: `BCA` is not `CAB`. A product has no order: `xy` is `yx`."""
    if not WORDS.fullmatch(gold) or not WORDS.fullmatch(answer):
        return None
    if gold.casefold() == answer.casefold():
        return True
    return _is_product(gold) and _is_product(answer) and sorted(gold) == sorted(answer)


def _is_product(letters: str) -> bool:
    """Whether letters are rather a product of variables than a word: `xy`, `abc`, not `no` or `tea`."""
    if not letters.islower() or not letters.isalpha() or len(set(letters)) != len(letters):
        return False
    if len(letters) > 2 and "a" in letters:
        return set(letters) <= set("abcdxyz")
    return set("eiou").isdisjoint(letters)


class Based(NamedTuple):
    """A number that is written in a base."""

    value: int
    base: int


def bases(gold: str, answer: str) -> bool | None:
    r"""Numbers in a base, by value: `1011_2` is `11_{10}` and `11`, not `1011_3`."""
    one, other = _based(gold), _based(answer)
    if one is None and other is None:
        return None
    values = [based.value if based else _integer(text) for based, text in ((one, gold), (other, answer))]
    return None if None in values else values[0] == values[1]


def _integer(text: str) -> int | None:
    found = number(text)
    return int(found.value) if found is not None and found.value.denominator == 1 else None


def _based(text: str) -> Based | None:
    match = BASED.fullmatch(text)
    if match is None:
        return None
    digits, name = match[1].lower(), (match[2] or match[3]).lower()
    base = BASES.get(name) or (int(name) if name.isascii() and name.isdigit() and len(name) < 3 else 0)
    if not 2 <= base <= 36 or not all(digit in DIGITS[:base] for digit in digits):
        return None
    if digits.isalpha() and len(digits) < 2:  # `A_{16}` is a variable
        return None
    return Based(int(digits, base), base)


class Time(NamedTuple):
    """A time of day as it is written; `half` is a, p or, without either, None."""

    hour: int
    minute: int
    second: int
    half: str | None
    is_ratio: bool  # it may be one as well

    @property
    def hour_of_day(self) -> int:
        """From 0 to 24."""
        if self.half is None or self.hour > 12:
            return self.hour
        return self.hour % 12 + (12 if self.half == "p" else 0)


def times(gold: str, answer: str) -> bool | None:
    r"""Times of day: `2:30 \text{ p.m.}` is `2:30` and `14:30`, not `2:30 \text{ a.m.}`.

    `3:2` is a ratio, and so may be a gold answer in lowest terms, like `1:15`.
    """
    one, other = _time(gold), _time(answer)
    if one is None:
        return None
    if other is None:
        return None if one.is_ratio else False
    if one.is_ratio and other.half is None:
        return None
    if one[1:3] != other[1:3]:
        return False
    if (one.half is None) == (other.half is None):
        return one.hour_of_day == other.hour_of_day
    bare, told = (one, other) if one.half is None else (other, one)
    return bare.hour in (told.hour, told.hour_of_day)


def _time(text: str) -> Time | None:
    match = TIME.fullmatch(text)
    if match is None or int(match[1]) > 24:
        return None
    hour, minute = int(match[1]), int(match[2])
    half = (match[4] or {"noon": "p", "midnight": "a"}.get((match[5] or "").lower(), "")).lower() or None
    is_ratio = half is None and match[3] is None and match[2][0] != "0" and gcd(hour, minute) == 1
    return Time(hour, minute, int(match[3] or 0), half, is_ratio)


def congruences(gold: str, answer: str) -> bool | None:
    r"""Congruences: `x \equiv 3 \pmod 7` is `x \equiv 10 \pmod{7}`."""
    one, other = CONGRUENCE.fullmatch(gold), CONGRUENCE.fullmatch(answer)
    if one is None or other is None:
        return None
    modulus = int(one[3])
    if modulus == 0 or modulus != int(other[3]):
        return False
    if one[1] and other[1] and one[1].replace(" ", "") != other[1].replace(" ", ""):
        return False
    return (int(one[2]) - int(other[2])) % modulus == 0
