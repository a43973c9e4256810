"""Tasks from datasets on disk to prompts that the generator takes."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rlstack.config.reward_names import needs_answer
from rlstack.config.schema import Task
from rlstack.data.chat import ChatTokenizer
from rlstack.data.chat_template import CLOCK, EMPTY, WORD, clock, refuse_template, template_failure
from rlstack.data.conversation import Turn, read_conversation
from rlstack.data.fields import ABSENT, columns_of, field_value
from rlstack.data.gold import read_gold, text_or_number
from rlstack.data.json_lines import shorten
from rlstack.data.records import Prompt
from rlstack.data.rows import Row, read_rows
from rlstack.data.templates import TEMPLATES, render
from rlstack.errors import ConfigError, refusing

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)


def load_task(
    task: Task,
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_prompt_tokens: int,
    where: str,
    filter_overlong: bool = False,
    vocab_size: int | None = None,
) -> list[Prompt]:
    """Every row of `task.path` as a prompt, in the order of the dataset.

    Args:
        task: the task's settings.
        tokenizer: of the policy's model; its chat template frames the prompt.
        max_prompt_tokens: the longest prompt that leaves room for an answer, in tokens.
        where: the setting that the task comes from, for messages: `data.tasks[0]`.
        filter_overlong: leave longer prompts out, and say in a warning how many; otherwise they are refused.
        vocab_size: tokens that the model has; None: as many as the tokenizer.

    Raises:
        ConfigError: the dataset or one of its rows cannot be used.
    """
    rows = read_task(task, where=where)
    chats = [[*row.context, {"role": "user", "content": _framed(row, task)}] for row in rows]
    prompts = [
        Prompt(task=task.name, row=row.index, problem=row.problem, answer=row.answer, token_ids=token_ids)
        for row, token_ids in zip(
            rows, tokenise_chats(tokenizer, chats, task.chat_template_kwargs), strict=True
        )
    ]
    _refuse_tokens(rows, prompts, vocab_size)
    if filter_overlong:
        return _that_fit(prompts, task, max_prompt_tokens, where=where)
    for row, prompt in zip(rows, prompts, strict=True):
        if len(prompt.token_ids) > max_prompt_tokens:
            remedy = ", or set data.filter_overlong=true" if where.startswith("data.") else ""
            raise ConfigError(
                f"{row.at}: the prompt has {len(prompt.token_ids)} tokens, and the context leaves room for "
                f"{max_prompt_tokens}; shorten or drop the row, or lower rollout.max_new_tokens{remedy}."
            )
    return prompts


def _refuse_tokens(rows: Sequence[TaskRow], prompts: Sequence[Prompt], vocab_size: int | None) -> None:
    for row, prompt in zip(rows, prompts, strict=True):
        if not len(prompt.token_ids):
            raise ConfigError(f"{row.at}: {EMPTY}")
        if vocab_size is not None and prompt.token_ids.max() >= vocab_size:
            raise ConfigError(
                f"{row.at}: the prompt has token {prompt.token_ids.max()}, and policy.model has a vocab_size "
                f"of {vocab_size}; use the model's own tokenizer, or resize its embeddings"
            )


def _that_fit(prompts: Sequence[Prompt], task: Task, max_prompt_tokens: int, *, where: str) -> list[Prompt]:
    """The prompts that leave room for an answer, with a warning of how many do not."""
    fit = [prompt for prompt in prompts if len(prompt.token_ids) <= max_prompt_tokens]
    if not fit:
        raise ConfigError(
            f"{where}.path = {task.path!r}: every prompt has more than the {max_prompt_tokens} tokens that "
            "the context leaves room for; shorten them, or lower rollout.max_new_tokens."
        )
    if len(fit) < len(prompts):
        logger.warning(
            "%s.path = %r: %d of %d rows are left out, whose prompts have more than the %d tokens that the "
            "context leaves room for (data.filter_overlong).",
            *(where, task.path, len(prompts) - len(fit), len(prompts), max_prompt_tokens),
        )
    return fit


def _framed(row: TaskRow, task: Task) -> str:
    return render(TEMPLATES[task.template], row.problem)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRow:
    """A row of a task's dataset."""

    index: int
    at: str  # for messages
    problem: str
    context: list[Turn]  # the turns before the problem
    answer: str | None


def read_task(task: Task, *, where: str) -> list[TaskRow]:
    """Every row of `task.path`, at least one, without a tokenizer; arguments and errors as of `load_task`."""
    columns = columns_of((task.problem_field, task.answer_field))
    rows = read_rows(Path(task.path), where=f"{where}.path", split=task.split, columns=columns)
    found = []
    for row in rows:
        *context, last = _conversation(row, task, where=where)
        answer = _answer(row, task, where=where)
        found.append(
            TaskRow(index=row.index, at=row.at, problem=last["content"], context=context, answer=answer)
        )
    if not found:
        raise ConfigError(f"{where}.path = {task.path!r} has no rows; give a dataset with at least one.")
    return found


def _conversation(row: Row, task: Task, *, where: str) -> list[Turn]:
    """The row's problem as the last turn of a conversation, mostly its only one."""
    field = task.problem_field
    value = field_value(row.record, field)
    try:
        turns = read_conversation(value)
    except ValueError as error:
        raise ConfigError(
            f"{row.at}: `{field}` {error}; write turns as {{role, content}}, both texts; one is the user's."
        ) from None
    if turns is None:
        if not isinstance(value, str) or not value.strip():
            raise ConfigError(
                f"{row.at}: {_found(field, value)}; `{field}` must be a text that is not empty, or the turns "
                f"of a conversation; if the problem is in another field, name that as {where}.problem_field."
            )
        turns = [{"role": "user", "content": value}]
    for turn in turns:
        _encodable(turn["content"], field, row)
    return turns


def _answer(row: Row, task: Task, *, where: str) -> str | None:
    """The row's gold answer where the reward compares with one, otherwise the field's text or number."""
    field = task.answer_field
    value = field_value(row.record, field)
    if not needs_answer(task.reward):
        answer = text_or_number(value)
    else:
        try:
            answer = read_gold(value)
        except ValueError as error:
            found = f"{_found(field, value)}{'' if value is ABSENT else f', {error}'}"
            raise ConfigError(
                f"{row.at}: {found}; the task's reward compares with `{field}`: add a text or a number to "
                f"the row, drop it, or name another field as {where}.answer_field."
            ) from None
    return None if answer is None else _encodable(answer, field, row)


def _encodable(text: str, field: str, row: Row) -> str:
    """`text`, which JSON's escapes let hold half of a surrogate pair; no tokenizer takes that."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        half = f"\\u{ord(text[error.start]):04x}"
        raise ConfigError(
            f"{row.at}: `{field}` has {half} at character {error.start}, half of a surrogate pair; write the "
            "character whole, or take it out."
        ) from None
    return text


def _found(field: str, value: object) -> str:
    if value is ABSENT:
        return f"`{field}` is missing"
    if isinstance(value, list | dict):  # which may be as long, and as deep, as a row can be
        return f"`{field}` is a {'list' if isinstance(value, list) else 'mapping'}"
    return f"`{field}` is {shorten(json.dumps(value, default=str))}"


def tokenise(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[np.ndarray]:
    """Tokenise each text as the user's turn of a chat; see `tokenise_chats`."""
    return tokenise_chats(tokenizer, [[{"role": "user", "content": text}] for text in texts], {})


def tokenise_chats(
    tokenizer: PreTrainedTokenizerBase, chats: Sequence[Sequence[Turn]], options: Mapping[str, Any]
) -> list[np.ndarray]:
    """The token ids [P] int32 of each chat, up to where the assistant's turn begins.

    `options` go to the chat template as variables. A control token that a text spells out is characters. The
    date is the same on every day.

    Raises ConfigError naming policy.model if its chat template cannot make prompts, or if its tokenizer.json
    has other tokens for them.
    """
    from rlstack.data.tokenizer import NUM_HELD, hold_to_file  # takes seconds, with transformers

    setting = "policy.model"
    for chat in {tuple(turn["role"] for turn in chat): chat for chat in chats}.values():
        last = {**chat[-1], "content": WORD}
        refuse_template(tokenizer, setting=setting, chat=[*chat[:-1], last], options=options)
    given = {CLOCK: clock, "add_generation_prompt": True, **options}
    with refusing(lambda error: f"{setting} = {tokenizer.name_or_path}: {template_failure(error)}"):
        prompts: Any = tokenizer.apply_chat_template(
            [list(chat) for chat in chats[:NUM_HELD]], tokenize=False, **given
        )
        token_ids = ChatTokenizer(tokenizer).token_ids(chats, **given)
    hold_to_file(tokenizer, prompts, setting=setting)
    return [np.array(ids, np.int32) for ids in token_ids]
