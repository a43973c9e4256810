"""Where a text puts its answer: the boxes of a response. Pure, and linear in the text's length."""

from __future__ import annotations

import re
from typing import NamedTuple

MARKER = "The final answer is"  # of the prompt template MATH
MAX_TAIL_CHARS = 200_000  # of a text, from its end: more than any response has, and 50 ms at the most
MAX_ANSWER_CHARS = 2000  # a longer box is no answer: nothing that long is compared

# A box, an escaped character (so that `\{` is no brace) or a brace. Each of the three begins with one literal
# character, which lets the search skip all others five times as fast.
TOKEN = re.compile(r"\\(?:\\?(?:boxed|fbox|framebox)(?![A-Za-z])\s*|.)|\{|\}", re.DOTALL)
# What a box without braces holds: `\boxed 5`, `\boxed\frac{1}{2}`, `\boxed B.`
BARE = re.compile(
    r"-?\d+(?:[.,]\d+)*|-?\\[dt]?frac\s*\{[^{}]*\}\s*\{[^{}]*\}|\\(?:pi|infty)(?![A-Za-z])"
    r"|[A-Za-z](?=\s*(?:[.,;$)]|$))"
)
# Between two boxes that are two parts of one answer: `$x=\boxed{2}$ or $x=\boxed{9}$`.
JOINT = re.compile(r"[\s$,;.]*(?:and|or|,)?[\s$,]*(?:[A-Za-z](?:_\{?\d\}?)?\s*=)?[\s$]*")
MAX_JOINT_CHARS = 50
MAX_PARTS = 20
PART = re.compile(r"[,;]|(?<![A-Za-z])(?:and|or)(?![A-Za-z])")  # what ends a part of a gold answer
BOX_AT_END = re.compile(r"\\{1,2}(?:boxed|fbox|framebox)\s*$")
# After MARKER, in place of a box: `The final answer is as above.`
REFERENCE = re.compile(r"\b(?:above|boxed|box|shown|given|stated)\b")
EMPTY = re.compile(r"\s*\}")
STATEMENT_END = re.compile(r"\.(?!\d)|\n|$")


class Box(NamedTuple):
    """A complete box: from the brace that opens it, or its first character, to behind its last one."""

    start: int
    end: int


def boxed_answer(text: str, *, num_parts: int = 1) -> str | None:
    r"""The content of the last box after the last MARKER, or in a text without one; None without a box.

    The last box counts, as in the MATH data set's own grader; finding it here rather than by math-verify's
    patterns leaves no way around the box ("The final answer is $5$"). A box before MARKER counts where what
    follows MARKER points back at it ("as above") or repeats it. `\fbox{5}` and `\boxed 5` are boxes too.

    num_parts: so many last boxes are joined by commas where nothing but a comma, "and", "or" and the name
    of a variable stands between them, as in `\boxed{3} and \boxed{4}`.
    """
    tail = text[-MAX_TAIL_CHARS:]
    marker = max(tail.rfind(MARKER), 0)
    boxes, is_open = _boxes(tail)
    after = [box for box in boxes if box.start >= marker]
    if (
        not after
        and boxes
        and not is_open
        and _repeats(tail[marker + len(MARKER) :], _content(tail, boxes[-1]))
    ):
        after = boxes
    if not after:
        return None
    parts = _joined(tail, after) if num_parts > 1 else after[-1:]
    if len(parts) != num_parts or any(PART.search(_content(tail, box)) for box in parts):
        parts = after[-1:]
    if sum(box.end - box.start for box in parts) > MAX_ANSWER_CHARS:
        return None
    return ", ".join(_content(tail, box) for box in parts)


def num_parts(gold: str) -> int:
    """The parts of a gold answer that is a list: 2 of `3, 4` and of `x = 3 \\text{ or } x = 4`."""
    return len(PART.findall(gold)) + 1 if len(gold) <= MAX_ANSWER_CHARS else 1


def _boxes(text: str) -> tuple[list[Box], bool]:
    """The complete boxes that hold something, by their starts, and whether one is not closed."""
    found: list[Box] = []
    openers: list[bool] = []  # of the open braces: whether it opens a box
    starts: list[int] = []  # of the open boxes
    pending = -1  # where the brace of a box would be
    for token in TOKEN.finditer(text):
        symbol, position = token.group(), token.start()
        if symbol == "{":
            openers.append(position == pending)
            if position == pending:
                starts.append(position)
        elif symbol == "}":
            if openers and openers.pop():
                start = starts.pop()
                if not EMPTY.match(text, start + 1, token.end()):
                    found.append(Box(start, token.end()))
        elif len(symbol) > 2:
            pending = token.end()
            if bare := BARE.match(text, pending):
                found.append(Box(*bare.span()))
    return sorted(found), bool(starts)


def _content(text: str, box: Box) -> str:
    held = text[box.start : box.end]
    return held[1:-1].strip() if held[0] == "{" else held


def _repeats(statement: str, content: str) -> bool:
    """Whether what follows MARKER only points back at a box, or says what it holds."""
    end = STATEMENT_END.search(statement)
    said = statement[: end.start() if end else None]
    if REFERENCE.search(said):
        return not any(character.isdigit() for character in said)
    return said.strip(" $:*()\\").replace(" ", "") == content.replace(" ", "")


def _joined(text: str, boxes: list[Box]) -> list[Box]:
    """The last boxes that are the parts of one answer."""
    parts = boxes[-1:]
    for box in reversed(boxes[:-1]):
        between = text[box.end : parts[0].start]
        if len(between) > MAX_JOINT_CHARS or len(parts) == MAX_PARTS:
            break
        if not JOINT.fullmatch(BOX_AT_END.sub("", between)):
            break
        parts.insert(0, box)
    return parts
