"""Tasks from datasets on disk to prompts that the generator takes."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from rlstack.config.reward_names import needs_answer
from rlstack.config.schema import Task
from rlstack.data.chat import ChatTokenizer
from rlstack.data.chat_template import CLOCK, EMPTY, WORD, clock, refuse_template, template_failure
from rlstack.data.conversation import Turn, read_conversation
from rlstack.data.fields import ABSENT, columns_of, field_value
from rlstack.data.gold import read_gold, text_or_number
from rlstack.data.json_lines import shorten
from rlstack.data.prompt_table import BATCH_ROWS, PromptTable, record_batch
from rlstack.data.rows import Row, read_rows, row_name
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
) -> PromptTable:
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
    table = PromptTable(task.name, prompt_batches(task, tokenizer, where=where))
    return that_fit(
        table,
        task,
        max_prompt_tokens=max_prompt_tokens,
        where=where,
        filter_overlong=filter_overlong,
        vocab_size=vocab_size,
    )


def prompt_batches(task: Task, tokenizer: PreTrainedTokenizerBase, *, where: str) -> Iterator[pa.RecordBatch]:
    """Every row of `task.path` as a prompt of any length, in batches for a PromptTable; as `load_task`."""
    framer = ChatFramer(tokenizer, task.chat_template_kwargs)
    rows = read_task(task, where=where)
    while batch := list(islice(rows, BATCH_ROWS)):
        chats = [[*row.context, {"role": "user", "content": _framed(row, task)}] for row in batch]
        yield record_batch(
            rows=[row.index for row in batch],
            problems=[row.problem for row in batch],
            answers=[row.answer for row in batch],
            token_ids=framer.tokenise(chats),
        )


def that_fit(
    table: PromptTable,
    task: Task,
    *,
    max_prompt_tokens: int,
    where: str,
    filter_overlong: bool,
    vocab_size: int | None,
) -> PromptTable:
    """The prompts that the model takes; arguments and errors as of `load_task`."""
    num_tokens, largest = table.num_tokens, table.largest_tokens
    _refuse_tokens(table, task, largest, vocab_size, where=where)
    is_overlong = num_tokens > max_prompt_tokens
    if not is_overlong.any():
        return table
    if not filter_overlong:
        index = int(is_overlong.argmax())
        remedy = ", or set data.filter_overlong=true" if where.startswith("data.") else ""
        raise ConfigError(
            f"{_row_name(table, index, task, where=where)}: the prompt has {num_tokens[index]} tokens, and "
            f"the context leaves room for {max_prompt_tokens}; shorten or drop the row, or lower "
            f"rollout.max_new_tokens{remedy}."
        )
    if is_overlong.all():
        raise ConfigError(
            f"{where}.path = {task.path!r}: every prompt has more than the {max_prompt_tokens} tokens that "
            "the context leaves room for; shorten them, or lower rollout.max_new_tokens."
        )
    logger.warning(
        "%s.path = %r: %d of %d rows are left out, whose prompts have more than the %d tokens that the "
        "context leaves room for (data.filter_overlong).",
        *(where, task.path, is_overlong.sum(), len(table), max_prompt_tokens),
    )
    return table.only(np.flatnonzero(~is_overlong))


def _refuse_tokens(
    table: PromptTable, task: Task, largest: np.ndarray, vocab_size: int | None, *, where: str
) -> None:
    """Raise ConfigError for the first prompt without tokens, or with one that the model does not have."""
    is_wrong = (largest < 0) | (False if vocab_size is None else largest >= vocab_size)
    if not is_wrong.any():
        return
    index = int(is_wrong.argmax())
    at = _row_name(table, index, task, where=where)
    if largest[index] < 0:
        raise ConfigError(f"{at}: {EMPTY}")
    raise ConfigError(
        f"{at}: the prompt has token {largest[index]}, and policy.model has a vocab_size of {vocab_size}; "
        "use the model's own tokenizer, or resize its embeddings"
    )


def _row_name(table: PromptTable, index: int, task: Task, *, where: str) -> str:
    """Where the row of the prompt at `index` is, for messages."""
    return row_name(Path(task.path), table[index].row, where=f"{where}.path", split=task.split)


def _framed(row: TaskRow, task: Task) -> str:
    return render(TEMPLATES[task.template], row.problem)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRow:
    """A row of a task's dataset."""

    index: int
    problem: str
    context: list[Turn]  # the turns before the problem
    answer: str | None


def read_task(task: Task, *, where: str) -> Iterator[TaskRow]:
    """The rows of `task.path`, at least one, without a tokenizer; arguments and errors as of `load_task`."""
    columns = columns_of((task.problem_field, task.answer_field))
    rows = read_rows(Path(task.path), where=f"{where}.path", split=task.split, columns=columns)
    is_empty = True
    for row in rows:
        is_empty = False
        *context, last = _conversation(row, task, where=where)
        answer = _answer(row, task, where=where)
        yield TaskRow(index=row.index, problem=last["content"], context=context, answer=answer)
    if is_empty:
        raise ConfigError(f"{where}.path = {task.path!r} has no rows; give a dataset with at least one.")


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
    """The token ids of each chat; arguments and errors as of ChatFramer."""
    return ChatFramer(tokenizer, options).tokenise(chats)


class ChatFramer:
    """Chats to token ids, up to where the assistant's turn begins; a text's control tokens are characters.

    The date is the same on every day.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, options: Mapping[str, Any]) -> None:
        """options: variables of the chat template."""
        self._tokenizer = tokenizer
        self._options = options
        self._given = {CLOCK: clock, "add_generation_prompt": True, **options}
        self._roles: set[tuple[str, ...]] = set()  # of the chats that the template has been tried on
        self._chats: ChatTokenizer | None = None

    def tokenise(self, chats: Sequence[Sequence[Turn]]) -> list[np.ndarray]:
        """The token ids [P] int32 of each chat.

        Raises ConfigError naming policy.model if its chat template cannot make prompts, or if its
        tokenizer.json has other tokens for the first of them.
        """
        tokenizer, setting = self._tokenizer, "policy.model"
        is_first = self._chats is None
        for chat in {tuple(turn["role"] for turn in chat): chat for chat in chats}.values():
            self._try_template(chat, setting)
        with refusing(lambda error: f"{setting} = {tokenizer.name_or_path}: {template_failure(error)}"):
            if self._chats is None:
                self._chats = ChatTokenizer(tokenizer)
            token_ids = self._chats.token_ids(chats, **self._given)
        if is_first:
            self._hold_to_file(chats, setting)
        return [np.array(ids, np.int32) for ids in token_ids]

    def _try_template(self, chat: Sequence[Turn], setting: str) -> None:
        """Refuse a template that does not take the roles of `chat`, once for each sequence of roles."""
        roles = tuple(turn["role"] for turn in chat)
        if roles not in self._roles:
            tried = [*chat[:-1], {**chat[-1], "content": WORD}]
            refuse_template(self._tokenizer, setting=setting, chat=tried, options=self._options)
            self._roles.add(roles)

    def _hold_to_file(self, chats: Sequence[Sequence[Turn]], setting: str) -> None:
        from rlstack.data.tokenizer import NUM_HELD, hold_to_file  # takes seconds, with transformers

        prompts: Any = self._tokenizer.apply_chat_template(
            [list(chat) for chat in chats[:NUM_HELD]], tokenize=False, **self._given
        )
        hold_to_file(self._tokenizer, prompts, setting=setting)
