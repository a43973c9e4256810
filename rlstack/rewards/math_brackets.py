"""Brackets that change nothing, in linear time. Pure."""

from __future__ import annotations

import re

TOKEN = re.compile(r"\\.|[(){}]|\s+|[^\\(){}\s]", re.DOTALL)
CLOSING = {"(": ")", "{": "}"}


def without_redundant_brackets(text: str) -> str:
    """`text` without brackets around all of it, and without brackets that stand right within their like.

    `((8))` and `{{8}}` are `8`, `(((x)))+1` is `(x)+1`; `(1, 2)` and `f(x)` stay.
    """
    if "(" not in text and "{" not in text:
        return text
    tokens = _without_padding(TOKEN.findall(text))
    partners = _partners(tokens)
    dropped = set()
    for start, end in partners.items():
        if partners.get(start + 1) == end - 1 and tokens[start] == tokens[start + 1]:
            dropped |= {start + 1, end - 1}
    is_list = "," in tokens or ";" in tokens
    first, last = 0, len(tokens) - 1
    while first < last and partners.get(first) == last and not (is_list and tokens[first] == "("):
        dropped |= {first, last}
        first, last = first + 1, last - 1
    return "".join(token for position, token in enumerate(tokens) if position not in dropped)


def _without_padding(tokens: list[str]) -> list[str]:
    """The tokens but the spaces at the inner sides of brackets."""
    before, after = ["", *tokens[:-1]], [*tokens[1:], ""]
    return [
        token
        for token, left, right in zip(tokens, before, after, strict=True)
        if not (token.isspace() and (left in CLOSING or right in CLOSING.values()))
    ]


def _partners(tokens: list[str]) -> dict[int, int]:
    """For each bracket that is closed by its like, the position of the one that closes it."""
    partners: dict[int, int] = {}
    opened: list[int] = []
    for position, token in enumerate(tokens):
        if token in CLOSING:
            opened.append(position)
        elif token in CLOSING.values() and opened:
            start = opened.pop()
            if CLOSING[tokens[start]] == token:
                partners[start] = position
    return partners
