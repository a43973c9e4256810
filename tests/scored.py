"""Groups of rollouts with given rewards."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rlstack.data.records import Outcome, Prompt, Rollout, RolloutGroup, Score, ScoredGroup


def scored_group(
    rewards: Sequence[float | None], rollouts: Iterable[Rollout] | None = None, *, row: int = 0
) -> ScoredGroup:
    """Unless they are given, rollout i has the one token i and the text "i"."""
    if rollouts is None:
        rollouts = (
            Rollout(token_ids=(i,), generator_logprobs=(0.0,), text=str(i), finished=True, version=0)
            for i in range(len(rewards))
        )
    prompt = Prompt(task="a", row=row, problem="", token_ids=(1,))
    return ScoredGroup(
        group=RolloutGroup(step=0, prompt=prompt, rollouts=tuple(rollouts)),
        scores=tuple(
            Score(reward=reward, outcome=Outcome.timeout if reward is None else Outcome.ok)
            for reward in rewards
        ),
    )
