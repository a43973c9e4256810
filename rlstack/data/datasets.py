"""Tasks from datasets on disk to prompts that the generator takes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlstack.config.reward_names import needs_answer
from rlstack.config.schema import Task
from rlstack.data.json_lines import shorten
from rlstack.data.records import Prompt
from rlstack.data.rows import Row, read_rows
from rlstack.data.templates import TEMPLATES, render
from rlstack.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def load_task(
    task: Task, tokenizer: PreTrainedTokenizerBase, *, max_prompt_tokens: int, where: str
) -> list[Prompt]:
    """Every row of `task.path` as a prompt, in the order of the dataset.

    Args:
        task: the task's settings.
        tokenizer: of the policy's model; its chat template frames the prompt.
        max_prompt_tokens: the longest prompt that leaves room for an answer, in tokens.
        where: the setting that the task comes from, for messages: `data.tasks[0]`.

    Raises:
        ConfigError: the dataset or one of its rows cannot be used.
    """
    rows = read_task(task, where=where)
    texts = [render(TEMPLATES[task.template], row.problem) for row in rows]
    prompts = [
        Prompt(task=task.name, row=row.index, problem=row.problem, answer=row.answer, token_ids=token_ids)
        for row, token_ids in zip(rows, tokenise(tokenizer, texts), strict=True)
    ]
    for row, prompt in zip(rows, prompts, strict=True):
        if len(prompt.token_ids) > max_prompt_tokens:
            raise ConfigError(
                f"{row.at}: the prompt has {len(prompt.token_ids)} tokens, and the context leaves room for "
                f"{max_prompt_tokens}; shorten or drop the row, or lower rollout.max_new_tokens."
            )
    return prompts


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRow:
    """A row of a task's dataset."""

    index: int
    at: str  # for messages
    problem: str
    answer: str | None


def read_task(task: Task, *, where: str) -> list[TaskRow]:
    """Every row of `task.path`, at least one, without a tokenizer; arguments and errors as of `load_task`."""
    columns = (task.problem_field, task.answer_field)
    rows = read_rows(Path(task.path), where=f"{where}.path", split=task.split, columns=columns)
    found = [
        TaskRow(
            index=row.index,
            at=row.at,
            problem=_problem(row, task, where=where),
            answer=_answer(row, task, where=where),
        )
        for row in rows
    ]
    if not found:
        raise ConfigError(f"{where}.path = {task.path!r} has no rows; give a dataset with at least one.")
    return found


def _problem(row: Row, task: Task, *, where: str) -> str:
    field = task.problem_field
    problem = row.record.get(field)
    if not isinstance(problem, str) or not problem.strip():
        raise ConfigError(
            f"{row.at}: {_found(field, row)}; `{field}` must be a text that is not empty; if the problem is "
            f"in another field, name that as {where}.problem_field."
        )
    return _encodable(problem, field, row)


def _answer(row: Row, task: Task, *, where: str) -> str | None:
    """The row's answer, which may be written as a number."""
    field = task.answer_field
    answer = row.record.get(field)
    if isinstance(answer, int | float) and not isinstance(answer, bool):
        answer = str(answer)
    if needs_answer(task.reward) and (not isinstance(answer, str) or not answer.strip()):
        raise ConfigError(
            f"{row.at}: {_found(field, row)}; the task's reward compares with `{field}`: add a text or a "
            f"number to the row, or name another field as {where}.answer_field."
        )
    return _encodable(answer, field, row) if isinstance(answer, str) else None


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


def _found(field: str, row: Row) -> str:
    if field not in row.record:
        return f"`{field}` is missing"
    value = row.record[field]
    if isinstance(value, list | dict):  # which may be as long, and as deep, as a row can be
        return f"`{field}` is a {'list' if isinstance(value, list) else 'mapping'}"
    return f"`{field}` is {shorten(json.dumps(value, default=str))}"


def tokenise(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[tuple[int, ...]]:
    """Each text as the user's turn of a chat, up to where the assistant's turn begins."""
    if tokenizer.chat_template is None:
        raise ConfigError(
            f"policy.model: the tokenizer of {tokenizer.name_or_path!r} has no chat template; "
            "add chat_template to its tokenizer_config.json."
        )
    chats = [[{"role": "user", "content": text}] for text in texts]
    # return_dict is given because its default changed between transformers 4 and 5.
    encoded: Any = tokenizer.apply_chat_template(
        chats, tokenize=True, add_generation_prompt=True, return_dict=True, padding=False, truncation=False
    )
    return [tuple(token_ids) for token_ids in encoded["input_ids"]]
