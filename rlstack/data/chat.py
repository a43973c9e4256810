"""Chats to token ids, with the control tokens of the chat template alone: none that a text spells out."""

from __future__ import annotations

import contextlib
import copy
import re
import uuid
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError

if TYPE_CHECKING:
    from transformers import AddedToken

Chat = Sequence[Mapping[str, Any]]

PLAIN_CHAT = [{"role": role, "content": "a"} for role in ("user", "assistant", "user")]


class ChatTokenizer:
    """Frames chats by a tokenizer's own chat template.

    A text in a chat without control tokens gives the ids of `tokenizer.apply_chat_template`. In any other,
    a mark is put into each control token that is spelt out, so that the tokenizer finds it no more; the mark
    is a token itself, whose ids are taken out in the end. The text's other tokens stay as they are.

    Control tokens are those that the tokenizer calls special, and the added ones that its template writes
    around the turns of a plain chat: DeepSeek's <｜User｜> is not called special, while Qwen's <think>, which
    belongs to an answer's text, is neither. A token of a single character stays what it is.
    """

    def __init__(self, tokenizer: Any) -> None:
        """Of a tokenizer of transformers that has a chat template."""
        self._tokenizer = tokenizer
        self._mark = f"\ufdd0{uuid.uuid4().hex}"  # no character, then digits that nobody can foresee
        self._control = self._control_tokens()
        spelt = sorted({token.content.strip() for token in self._control.values()}, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, spelt)) or r"(?!)", re.IGNORECASE)
        # The tokenizer finds these in what its normalizer makes of a text, which a pattern cannot foresee.
        self._is_normalised = any(token.normalized for token in self._control.values())

    def token_ids(self, chats: Sequence[Chat], **options: Any) -> list[list[int]]:
        """The ids of each chat; `options`, add_generation_prompt for example, are the template's.

        Raises:
            jinja2.TemplateError: the template does not take such a chat.
        """
        if not chats:
            return []
        whole = [[self._without_control_tokens(message) for message in chat] for chat in chats]
        if whole == [list(chat) for chat in chats]:
            return _apply(self._tokenizer, chats, options)
        tokenizer, mark_id = self._marking
        return [[i for i in ids if i != mark_id] for ids in _apply(tokenizer, whole, options)]

    def spells_control_token(self, text: str) -> bool:
        """Whether a control token is spelt out in `text`."""
        return bool(self._spans(text))

    def _control_tokens(self) -> dict[int, AddedToken]:
        try:
            added: dict[int, AddedToken] = self._tokenizer.added_tokens_decoder
        except NotImplementedError:  # by mistral-common's, which reads no control tokens in texts
            return {}
        added = {i: token for i, token in added.items() if len(token.content.strip()) > 1}
        of_turns: set[int] = set()
        if not all(token.special for token in added.values()):
            with contextlib.suppress(TemplateError):  # of a template that takes other chats only
                of_turns = set(_apply(self._tokenizer, [PLAIN_CHAT], {})[0])
        return {i: token for i, token in added.items() if token.special or i in of_turns}

    @cached_property
    def _marking(self) -> tuple[Any, int]:
        """A copy of the tokenizer to which the mark is a token, and the id of that."""
        tokenizer = copy.deepcopy(self._tokenizer)
        from transformers import AddedToken  # takes seconds

        tokenizer.add_tokens([AddedToken(self._mark, normalized=False, special=False)])
        return tokenizer, tokenizer.convert_tokens_to_ids(self._mark)

    def _without_control_tokens(self, message: Mapping[str, Any]) -> dict[str, Any]:
        return {key: self._marked(value) for key, value in message.items()}

    def _marked(self, value: Any) -> Any:
        """`value` with a mark in each control token of its texts, those in lists and mappings included."""
        if isinstance(value, str):
            while spans := self._spans(value):  # a part of a token may be another token
                value = _with_mark(value, spans, self._mark)
            return value
        if isinstance(value, Mapping):
            return {key: self._marked(part) for key, part in value.items()}
        return [self._marked(part) for part in value] if isinstance(value, list | tuple) else value

    def _spans(self, text: str) -> list[tuple[int, int]]:
        """Where the control tokens in `text` begin and end; spaces that they take in included."""
        found = [match.span() for match in self._pattern.finditer(text)]
        if not self._tokenizer.is_fast or not (found or self._is_normalised):
            return found
        tokenizer, _ = self._marking
        encoded = tokenizer(
            text, add_special_tokens=False, return_offsets_mapping=True, truncation=False, verbose=False
        )
        offsets = zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
        return [span for i, span in offsets if i in self._control and self._spells(text[slice(*span)], i)]

    def _spells(self, text: str, token_id: int) -> bool:
        """Whether `text`, for which the tokenizer gives a control token, is its spelling.

        What a tokenizer does not know at all may become a control token too, "unknown".
        """
        token, text = self._control[token_id], text.strip()
        if token.normalized and token_id != self._tokenizer.unk_token_id:
            return len(text) > 1
        return text == token.content.strip()


def _apply(tokenizer: Any, chats: Sequence[Chat], options: Mapping[str, Any]) -> list[list[int]]:
    # return_dict is given because its default changed between transformers 4 and 5.
    encoded = tokenizer.apply_chat_template(
        [list(chat) for chat in chats],
        tokenize=True,
        return_dict=True,
        padding=False,
        truncation=False,
        **options,
    )
    ids: list[list[int]] = encoded["input_ids"]
    return ids


def _with_mark(text: str, spans: Sequence[tuple[int, int]], mark: str) -> str:
    """`text` with a mark after the first character of each span that is not a space."""
    cuts = [start + len(text[start:end]) - len(text[start:end].lstrip()) + 1 for start, end in spans]
    return mark.join(text[a:b] for a, b in pairwise([0, *cuts, len(text)]))
