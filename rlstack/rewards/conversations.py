"""Prompts and answers to the token sequences that a reward model reads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rlstack.data.chat import ChatTokenizer
from rlstack.data.chat_template import CLOCK, clock
from rlstack.data.load import load_reward_tokenizer
from rlstack.rewards.scorer import Question


class Conversation(NamedTuple):
    token_ids: list[int]  # the score is read at the last one
    truncated: bool  # tokens before the last one are missing


class ConversationTokenizer:
    """Frames (problem, response) as a chat by the reward model's own chat template, not the policy's."""

    def __init__(self, folder: Path, *, max_tokens: int) -> None:
        """Of the model in `folder`; longer conversations are cut to `max_tokens`.

        Raises:
            ConfigError: the tokenizer cannot be loaded, or its chat template does not take such a chat.
        """
        self._tokenizer: Any = load_reward_tokenizer(folder, setting="path of reward.models")
        self._max_tokens = max_tokens
        self._chats = ChatTokenizer(self._tokenizer)
        # Athene-RM reads its score at a token of its own after the chat, which its tokenizer calls cls.
        self._closing = [] if (cls := self._tokenizer.cls_token_id) is None else [cls]

    def conversations(self, questions: Sequence[Question]) -> list[Conversation]:
        """One conversation for each response of each question, in their order.

        A control token that a text spells out is characters: an answer cannot end its own turn.
        """
        chats = [
            [{"role": "user", "content": question.problem}, {"role": "assistant", "content": response}]
            for question in questions
            for response in question.responses
        ]
        token_ids = self._chats.token_ids(chats, **{CLOCK: clock})
        return [cut([*ids, *self._closing], max_tokens=self._max_tokens) for ids in token_ids]


def cut(token_ids: list[int], *, max_tokens: int) -> Conversation:
    """The first tokens and the last one: the model learnt to give its score there and nowhere else."""
    if len(token_ids) <= max_tokens:
        return Conversation(token_ids, truncated=False)
    return Conversation([*token_ids[: max_tokens - 1], token_ids[-1]], truncated=True)
