"""Problems that are given as the turns of a conversation. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

Turn = dict[str, str]  # role, content

SENDERS = {"human": "user", "gpt": "assistant"}  # ShareGPT's names of roles


def read_conversation(value: object) -> list[Turn] | None:
    """The turns up to the user's last one, which is the problem; None if `value` is no conversation.

    A turn is {role, content}, with a text or with parts that are texts, or ShareGPT's {from, value}. What
    follows the user's last turn is an answer, which the policy writes itself. The list may be a text of JSON.

    Raises:
        ValueError: it is one that cannot be a prompt; the message says why.
    """
    if isinstance(value, str):
        value = _decoded(value)
    if not isinstance(value, list) or not value or not all(map(_is_turn, value)):
        return None
    turns = [_turn(turn, number) for number, turn in enumerate(value, 1)]
    last = max((i for i, turn in enumerate(turns) if turn["role"] == "user"), default=None)
    if last is None:
        raise ValueError("has no turn of the user")
    if not turns[last]["content"].strip():
        raise ValueError("has an empty last turn of the user")
    return turns[: last + 1]


def _is_turn(turn: object) -> bool:
    return isinstance(turn, Mapping) and ("role" in turn or "from" in turn)


def _turn(turn: Mapping[str, Any], number: int) -> Turn:
    role = turn["role"] if "role" in turn else turn["from"]
    content = turn.get("content") if "role" in turn else turn.get("value")
    if isinstance(content, list):
        content = _joined(content)
    if not isinstance(role, str) or not isinstance(content, str):
        raise ValueError(f"has a turn, number {number}, whose role and content are not both texts")
    return {"role": SENDERS.get(role, role), "content": content}


def _joined(parts: list[object]) -> str | None:
    """The text of content in parts, as for models that also see images; None if not all of them are texts."""
    texts = [part.get("text") if isinstance(part, Mapping) else None for part in parts]
    return "".join(text for text in texts if isinstance(text, str)) if None not in texts else None


def _decoded(text: str) -> object:
    try:
        return json.loads(text) if text.lstrip().startswith("[") else None
    except (ValueError, RecursionError):
        return None
