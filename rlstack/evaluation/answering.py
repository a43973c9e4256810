"""Prompts to scored answers, a chunk at a time: one is scored and kept while the next is being sampled."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from rlstack.config.schema import Rollout
from rlstack.data.records import Prompt, RolloutGroup
from rlstack.evaluation.answers import AnsweredPrompt
from rlstack.orchestration.engine_group import EngineGroup, Pending, Sampling
from rlstack.rewards.router import Rewards

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
    waiting: tuple[Work, Pending] | None = None
    for work in works:
        for chunk in work.chunks(chunk_size(settings, n=work.sampling.n)):
            pending = engines.submit(
                chunk.prompts, chunk.sampling, stream="evaluate", step=0, positions=chunk.positions
            )
            if waiting is not None:
                keep(_finish(*waiting, rewards))
            waiting = chunk, pending
    if waiting is not None:
        keep(_finish(*waiting, rewards))


def chunk_size(settings: Rollout, *, n: int) -> int:
    """Prompts to a chunk, so that it is WAVES times what the engines decode together."""
    return math.ceil(WAVES * settings.max_num_seqs * settings.engines / n)


def sampled_groups(prompts: Sequence[Prompt], pending: Pending) -> list[RolloutGroup]:
    """Each prompt with its answers, once they are there; for a step they have the version that gave them."""
    return [
        RolloutGroup(step=rollouts[0].version, prompt=prompt, rollouts=rollouts)
        for prompt, rollouts in zip(prompts, pending.result(), strict=True)
    ]


def _finish(work: Work, pending: Pending, rewards: Rewards) -> list[AnsweredPrompt]:
    groups = sampled_groups(work.prompts, pending)
    if not work.is_scored:
        return [AnsweredPrompt.of(group, ()) for group in groups]
    return [AnsweredPrompt.of(scored.group, scored.scores) for scored in rewards.score(groups)]
