r"""From a dataset's gold answer to the expression that answers are compared with. Pure.

`#### 42` after a solution is `42`; so are a solution with `\boxed{42}` in it, `$42$`, `The answer is 42.`,
`42 (apples)`, `["42"]` and `{"ground_truth": "42"}`. A list of several answers stands for any of them.
"""

from __future__ import annotations

import json
import math
import re
from ast import literal_eval
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, TypeGuard

from rlstack.data.boxed import boxed_answer

HASHES = "####"  # before the answer at the end of GSM8K's solutions
MAX_EXPONENT = 400  # of ten, up to which a number is written out
MAX_DEPTH = 4  # of lists and mappings in each other
# What a missing value is written as. `\text{None}`, DNE and `undefined` are answers, and Na is sodium.
MISSING = re.compile(r"(?i:none|null|[-+]?nan|nat|<na>|n/a|n\.a\.|#n/?a|[-+]?inf)|NA")
# The keys under which a mapping may hold the answer, the first of them that it has.
KEYS = (
    *(
        "ground_truth",
        "ground_truths",
        "answer",
        "answers",
        "final_answer",
        "final_answers",
        "gold",
        "gold_answer",
    ),
    *("gt", "target", "label", "value", "correct_answer", "expected_answer", "reference_answer", "reference"),
    *("solution", "result"),
)
MATH_DELIMITERS = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"))
DISPLAYS = {r"\[": r"\]", "$$": "$$"}

PLAIN = re.compile(r"-?\d+(?:\.\d+)?(?:/\d+)?")
SCIENTIFIC = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)[eE][-+]?\d{1,9}")
TAGGED = re.compile(r"<answer>(.*?)</answer>", re.DOTALL | re.IGNORECASE)
# The answer is 42. Final answer: 42. The correct result to the problem is $42$.
STATED = re.compile(
    r"(?<![A-Za-z\\{])(?:final |correct |right |exact |required |desired |numerical |total |overall )*"
    r"(?:answer|result|solution)s?(?: (?:to|of|for) [^.:=\n$]{1,60}?)?\**\s*"
    r"(?::|=|\b(?:is|are|equals|would be|will be|must be|should be)\b)\s*:?\**\s*(?=\S)",
    re.IGNORECASE,
)
LABELLED = re.compile(r"^\s*(?:A|Ans)\s*[:=]\s*(?=\S)", re.MULTILINE)  # Q: ... A: 42
AFTERTHOUGHT = re.compile(r"\s*I hope it is correct\.?$", re.IGNORECASE)
IS_THE_ANSWER = re.compile(
    r"(?P<value>\S.{0,200}?) is the (?:final |correct |right )?(?:answer|result)\.?", re.I
)
HENCE = re.compile(
    r"(?:so|thus|therefore|hence|finally|in total|altogether|in conclusion)\b[,:]?\s+", re.IGNORECASE
)
# The value of $x$ is $5$. Their sum is 12.
SENTENCE = re.compile(
    r"(?:the|its|their|our|his|her)(?: [^\s=<>]+){1,8}? (?:is|are|was|equals|will be|would be) "
    r"(?:equal to |exactly |about )?(?P<value>[-+]?[\d$\\(\[{.].*)",
    re.IGNORECASE,
)
NEXT_SENTENCE = re.compile(r"(?<=[\w)}\]$%])\.\s+(?=[A-Z]).*$", re.DOTALL)
FULL_STOP = re.compile(r"(?<=[\d)}\]$%])\s*\.$")
NUMBER = r"[-+]?\\?\$?(?:\d[\d,]*(?:\.\d+)?(?: \d+/\d+|/\d+)?|\.\d+)\\?%?"
NOTED = re.compile(rf"(?P<value>{NUMBER})\s+\((?P<note>[^()]*)\)")  # 640 (pages of a book)
NOTE = re.compile(r"[^\W\d_][^\d_=<>+*^$\\|(){}\[\]]*")
# 9 (cm), but not 3 (xy)
NOTE_WORD = re.compile(
    r"[^\W\d_]{3,}|(?:[cmk]m|[km]g|m[ls]|ft|in|yd|lb|oz|hr|am|pm)(?![^\W\d_])", re.IGNORECASE
)
# A note in parentheses with one of them is a part of the expression: 3 (mod n), 5 (sin x).
NO_NOTE = re.compile(
    r"\b(?:mod|base|sin|cos|tan|cot|sec|csc|log|ln|lg|exp|sqrt|pi|max|min|gcd|lcm|or|and|to|remainder)\b",
    re.IGNORECASE,
)


def read_gold(value: object) -> str:
    """The gold answer that `value`, a field of a row, stands for; see `accepted_answers` for one of several.

    Raises:
        ValueError: it is none; the message says why, as what follows "the value is".
    """
    answers = list(dict.fromkeys(_answers(value, MAX_DEPTH)))
    return answers[0] if len(answers) == 1 else json.dumps(answers, ensure_ascii=False)


def accepted_answers(gold: str) -> tuple[str, ...]:
    """The answers of which any is right, from what `read_gold` gives."""
    if not gold.startswith('["'):
        return (gold,)
    answers = _decoded(gold)
    return (
        tuple(answers) if isinstance(answers, list) and all(isinstance(a, str) for a in answers) else (gold,)
    )


def text_or_number(value: object) -> str | None:
    """A text as it is and a finite number in decimals; None for anything else."""
    if isinstance(value, str):
        return value
    return number_text(value) if _is_number(value) and math.isfinite(value) else None


def number_text(number: float | Decimal) -> str:
    """A finite number in decimals: 1e-05 is `0.00001`, 5.0 stays `5.0`. Raises ValueError for others."""
    if not math.isfinite(number):
        raise ValueError("no finite number")
    if isinstance(number, int):
        return str(number)
    return format(number if isinstance(number, Decimal) else Decimal(repr(number)), "f")


def _is_number(value: object) -> TypeGuard[int | float | Decimal]:
    return isinstance(value, int | float | Decimal) and not isinstance(value, bool)


def _answers(value: object, depth: int) -> list[str]:
    if _is_number(value):
        return [number_text(value)]
    if isinstance(value, str):
        return _answers_of_text(value.strip(), depth)
    if not isinstance(value, list | Mapping):
        raise ValueError("a missing value" if value is None else "neither a text nor a number")
    if depth == 0 or not value:
        raise ValueError("lists in lists, too deep to be read" if value else "empty")
    if isinstance(value, Mapping):
        return _answers(_answer_of_mapping(value), depth - 1)
    return [answer for item in value for answer in _answers(item, depth - 1)]


def _answer_of_mapping(value: Mapping[Any, object]) -> object:
    keys = [key for key in KEYS if value.get(key) is not None]
    if not keys:
        raise ValueError(f"a mapping without {KEYS[0]}, answer or the like")
    return value[keys[0]]


def _answers_of_text(text: str, depth: int) -> list[str]:
    if PLAIN.fullmatch(text):
        return [text]
    if isinstance(decoded := _decoded(text), str | list | Mapping):
        return _answers(decoded, depth - 1 if isinstance(decoded, str) else depth) if depth else [text]
    answer = _undressed(_stated(text))
    if not answer:
        raise ValueError("empty")
    if MISSING.fullmatch(answer):
        raise ValueError("the text of a missing value")
    return [answer]


def _decoded(text: str) -> object:
    """What `text` says as JSON, or as Python writes a list; None for a text that is an expression.

    `[1, 2]` is an interval and `["1", "2"]` is a list of two answers.
    """
    if text[:1] not in tuple('[{"') or text[-1:] not in tuple(']}"'):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = _of_python(text)
    if (
        isinstance(value, list)
        and len(value) > 1
        and not all(isinstance(item, str | Mapping) for item in value)
    ):
        return None
    return value


def _of_python(text: str) -> object:
    if text[:2] not in ("['", "{'"):
        return None
    try:
        value = literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None
    return value if repr(value) == text else None  # ['1' '2'], as numpy writes a list, is not ['12']


def _stated(text: str) -> str:
    r"""The part of a solution that states its answer: what is tagged, after `####`, in the last box, or after
    "the answer is"; the whole text where there is nothing of the kind.
    """
    if tagged := TAGGED.findall(text):
        text = tagged[-1].strip() or text
    if HASHES in text:
        after = text.rpartition(HASHES)[2].strip()
        text = after if boxed_answer(after) else after.partition("\n")[0]
    if (boxed := boxed_answer(text)) is not None:
        return boxed
    text = AFTERTHOUGHT.sub("", text)
    ends = [match.end() for pattern in (STATED, LABELLED) for match in pattern.finditer(text)]
    stated = NEXT_SENTENCE.sub("", _first_line(text[max(ends) :])).rstrip(".") if ends else ""
    if stated and stated.count("{") == stated.count("}"):  # not the end of \text{The answer is } 5
        return stated
    if match := IS_THE_ANSWER.fullmatch(text):
        return match["value"]
    if lead := HENCE.match(text):
        text = text[lead.end() :].removesuffix(".")
    sentence = SENTENCE.fullmatch(text)
    return sentence["value"].removesuffix(".") if sentence else text


def _first_line(text: str) -> str:
    """The first line, or the formula that stands in lines of its own there."""
    for opener, closer in DISPLAYS.items():
        if text.startswith(opener) and closer in text[2:]:
            return text[2:].partition(closer)[0]
    return text.partition("\n")[0].strip()


def _undressed(text: str) -> str:
    """`text` without what stands around an expression: delimiters of formulas, a full stop, a note."""
    before = None
    while text != before:
        before, text = text, FULL_STOP.sub("", text.strip())
        for opener, closer in (*MATH_DELIMITERS, ("**", "**")):
            text = _without(opener, closer, text)
        match = NOTED.fullmatch(text)
        if match and _is_note(match["note"]):
            text = match["value"]
    if r"\begin" in text:
        text = " ".join(text.split())  # the lines of a matrix
    return _written_out(text) if SCIENTIFIC.fullmatch(text) else text


def _without(opener: str, closer: str, text: str) -> str:
    if not (text.startswith(opener) and text.endswith(closer) and len(text) > len(opener) + len(closer)):
        return text
    inner = text[len(opener) : -len(closer)]
    return text if opener in inner or closer in inner or inner.endswith("\\") else inner


def _is_note(text: str) -> bool:
    return bool(NOTE.fullmatch(text) and NOTE_WORD.search(text)) and not NO_NOTE.search(text)


def _written_out(text: str) -> str:
    """A number such as 1e-05 in decimals; as a product with a power of ten where these would be too many."""
    mantissa, _, exponent = text.lower().partition("e")
    if abs(int(exponent)) > MAX_EXPONENT:
        return rf"{mantissa} \times 10^{{{int(exponent)}}}"
    return format(Decimal(text), "f")
