"""Prompts to scored answers, a chunk at a time: one is scored and kept while the next is being sampled."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from rlstack.config.schema import Rollout
from rlstack.data.records import Prompt, ScoredGroup
from rlstack.evaluation.answers import AnsweredPrompt
from rlstack.orchestration.engine_group import EngineGroup
from rlstack.orchestration.engine_seat import Sampling
from rlstack.orchestration.pending import PendingGroups, PendingScores
from rlstack.rewards.router import Rewards

Chunk = PendingGroups | PendingScores

WAVES = 4  # of full batches to a chunk: the engines idle only while the last answers of a chunk end


@dataclass(frozen=True, slots=True)
class Work:
    """Prompts that lack their answers, of a set of which others have them."""

    prompts: Sequence[Prompt]
    positions: Sequence[int]  # their places among all prompts of the evaluation: their seeds
    sampling: Sampling
    is_scored: bool  # by the task's reward; otherwise the answers are for a judge
    num_kept: int = 0  # prompts of the set that have their answers

    def chunks(self, size: int) -> Iterator[Work]:
        """The same work in parts of `size` prompts."""
        for first in range(0, len(self.prompts), size):
            part = slice(first, first + size)
            yield replace(self, prompts=self.prompts[part], positions=self.positions[part])


def answer(
    works: Sequence[Work],
    engines: EngineGroup,
    rewards: Rewards,
    settings: Rollout,
    keep: Callable[[list[AnsweredPrompt]], None],
) -> None:
    """Answer and score all prompts of `works`; `keep` gets each chunk as soon as it is done."""
    waiting: Chunk | None = None
    for work in works:
        for chunk in work.chunks(chunk_size(settings, n=work.sampling.n)):
            places = [(0, position) for position in chunk.positions]
            answers = engines.submit(chunk.prompts, chunk.sampling, stream="evaluate", places=places)
            asked: Chunk = (
                PendingScores(chunk.prompts, answers, rewards, attend=engines.attend)
                if work.is_scored
                else PendingGroups(chunk.prompts, answers, attend=engines.attend)
            )
            if waiting is not None:
                keep(_finish(waiting, rewards))
            waiting = asked
    if waiting is not None:
        keep(_finish(waiting, rewards))


def answered_prompts(scored: Iterable[ScoredGroup], rewards: Rewards) -> list[AnsweredPrompt]:
    """The groups as the measures take them; `rewards` have scored them."""
    return [
        AnsweredPrompt.of(group.group, group.scores, verdicts=rewards.gives_verdicts(group.group.prompt.task))
        for group in scored
    ]


def chunk_size(settings: Rollout, *, n: int) -> int:
    """Prompts to a chunk, so that it is WAVES times what the engines decode together."""
    return math.ceil(WAVES * settings.max_num_seqs * settings.engines / n)


def _finish(chunk: Chunk, rewards: Rewards) -> list[AnsweredPrompt]:
    if isinstance(chunk, PendingGroups):
        return [AnsweredPrompt.of(group, ()) for group in chunk.result()]
    return answered_prompts(chunk.scored(), rewards)
