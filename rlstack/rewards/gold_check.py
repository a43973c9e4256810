"""Every gold answer against itself, before a run starts: a row whose gold nothing equals teaches nothing."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import NamedTuple

from rlstack.config.reward_names import needs_answer, verifier_workers
from rlstack.config.schema import Reward, RunConfig, Task
from rlstack.config.tasks import tasks_by_setting
from rlstack.data.gold import accepted_answers
from rlstack.data.json_lines import shorten
from rlstack.data.records import Outcome, Prompt
from rlstack.errors import ConfigError
from rlstack.rewards.gold_cache import recall, remember
from rlstack.rewards.gold_flaws import flaw
from rlstack.rewards.math import MathVerifier
from rlstack.telemetry.progress import Progress

CHECKED_TOGETHER = 512  # and remembered together
MOMENT_S = 3.0  # after which the progress is shown
MAX_SHOWN = 5  # rows
UNREAD = "no value that can be read"
# What is equal to itself without a proof: 42, -0.5, 1,000, 3/4.
PLAIN = re.compile(
    r"-?(?:\d{1,3}(?:,\d{3}){1,99}|\d{1,300})(?:\.\d{1,300})?|-?\d{1,300}/0{0,9}[1-9]\d{0,300}"
)

logger = logging.getLogger(__name__)


class Unverifiable(NamedTuple):
    """A row none of whose gold answers can be verified."""

    row: int  # from 0
    gold: str
    why: str


def gold_problems(config: RunConfig, prompts: Mapping[str, Sequence[Prompt]]) -> list[str]:
    """A line for each task with more unverifiable gold answers than data.max_unverifiable; below, a warning.

    A gold answer is unverifiable where the same expression in a box, in the form that the template MATH calls
    for, is not found to equal it, or where it is read as no value at all.

    Args:
        prompts: of each task whose reward compares, by its setting: data.tasks[0].
    """
    tasks = {key: task for key, task in tasks_by_setting(config).items() if needs_answer(task.reward)}
    golds = (gold for key in tasks for prompt in prompts.get(key, ()) for gold in _golds(prompt))
    flaws = find_flaws(golds, config.reward)
    problems = []
    for key, task in tasks.items():
        found = list(_unverifiable(prompts.get(key, ()), flaws))
        if not found:
            continue
        text = _text(key, task, found, len(prompts[key]))
        if len(found) > config.data.max_unverifiable * len(prompts[key]):
            problems.append(f"{text}; data.max_unverifiable = {config.data.max_unverifiable:g} accepts fewer")
        else:
            logger.warning("%s", text)
    return problems


def refuse_unverifiable(config: RunConfig, held_out: Sequence[Prompt]) -> None:
    """Of an evaluation's prompts, as `gold_problems`. Raises ConfigError where that finds some."""
    if problems := gold_problems(config, by_setting(config.evaluation.tasks, "evaluation", held_out)):
        raise ConfigError("\n".join(problems))


def by_setting(tasks: Sequence[Task], section: str, prompts: Iterable[Prompt]) -> dict[str, list[Prompt]]:
    """The prompts of each task of a section, by the task's setting."""
    keys = {task.name: f"{section}.tasks[{i}]" for i, task in enumerate(tasks)}
    found: dict[str, list[Prompt]] = {key: [] for key in keys.values()}
    for prompt in prompts:
        found[keys[prompt.task]].append(prompt)
    return found


def find_flaws(golds: Iterable[str], settings: Reward) -> dict[str, str]:
    """The unverifiable ones of `golds`, each with the reason, found in the math verifier's processes."""
    distinct = sorted({gold for gold in golds if not PLAIN.fullmatch(gold)})
    flaws = {gold: why for gold in distinct if (why := flaw(gold)) is not None}
    left = [gold for gold in distinct if gold not in flaws]
    started, done = time.perf_counter(), 0
    with ExitStack() as opened:
        verifier: MathVerifier | None = None
        progress: Progress | None = None
        for first in range(0, len(left), CHECKED_TOGETHER):
            golds_now = left[first : first + CHECKED_TOGETHER]
            unread = recall(golds_now)
            if unread is None:
                if verifier is None:
                    verifier = opened.enter_context(
                        MathVerifier(verifier_workers(settings), settings.timeout_s)
                    )
                unread = _unread(golds_now, verifier)
            flaws |= dict.fromkeys(unread, UNREAD)
            done += len(golds_now)
            if progress is not None:
                progress.advance(len(golds_now))
            elif time.perf_counter() - started > MOMENT_S and done < len(left):
                progress = opened.enter_context(Progress("gold answers", total=len(left), done=done))
    return flaws


def _unread(golds: Sequence[str], verifier: MathVerifier) -> set[str]:
    verdicts = dict(zip(golds, verifier.check_golds(golds), strict=True))
    unread = {gold for gold, verdict in verdicts.items() if verdict.reward != 1.0}
    if all(verdict.outcome is Outcome.ok for verdict in verdicts.values()):
        remember(golds, unread)  # otherwise a machine that is less busy may do better next time
    return unread


def _unverifiable(prompts: Sequence[Prompt], flaws: Mapping[str, str]) -> Iterator[Unverifiable]:
    for prompt in prompts:
        golds = _golds(prompt)
        if all(gold in flaws for gold in golds):
            yield Unverifiable(prompt.row, golds[0], flaws[golds[0]])


def _golds(prompt: Prompt) -> tuple[str, ...]:
    assert prompt.answer is not None, "the data's loader sees to it"
    return accepted_answers(prompt.answer)


def _text(key: str, task: Task, found: Sequence[Unverifiable], total: int) -> str:
    rows = ", ".join(
        f"row {row} (from 0) has {shorten(repr(gold))}, {why}" for row, gold, why in found[:MAX_SHOWN]
    )
    return (
        f"{key}.path = {task.path!r}: {len(found)} of {total} rows have a gold answer that no answer in "
        f"\\boxed{{}} can be verified to equal, and their rollouts teach nothing: {rows}; write the value "
        f"alone as `{task.answer_field}`, or name another field as {key}.answer_field"
    )
