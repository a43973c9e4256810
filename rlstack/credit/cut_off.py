"""Rollouts that rollout.max_new_tokens has cut off, as objective.cut_off has them. Pure.

A cut-off answer mostly gets the reward of a wrong one, whatever it would have come to: noise, which makes a
policy short rather than right. `mask` keeps it out of the loss: Overlong Filtering of arXiv 2503.14476,
section 3.4. `penalty` says instead how much a long answer loses, Soft Overlong Punishment there:

    R_length(y) = 0                                     |y| <= L_max - L_cache
                = ((L_max - L_cache) - |y|) / L_cache   L_max - L_cache < |y| <= L_max
                = -1                                    |y| > L_max                          (Eq. 13)

with L_max = rollout.max_new_tokens and L_cache = objective.cut_off_buffer_tokens. A reward gets
objective.cut_off_penalty x R_length added; |y| counts the end token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from rlstack.config.schema import CutOff, Objective, ObjectiveName
from rlstack.data.records import Rollout, Score, ScoredGroup

_BUFFER_PARTS = 5  # of the limit one is the buffer: 4096 of 20480 tokens in arXiv 2503.14476, section 4.1


def as_trained(
    scored: Sequence[ScoredGroup], objective: Objective, *, max_new_tokens: int | None
) -> list[ScoredGroup]:
    """The groups with the scores that pairs and advantages are made of, which `objective.cut_off` may change.

    A masked rollout loses its score where pairs are formed. Under grpo it keeps it, as with TRL's
    mask_truncated_completions: the group's mean is over all rewards, and only the loss leaves the rollout out
    (credit.assign.has_zero_loss).

    Raises ValueError if the penalty is to be measured and `max_new_tokens` is None.
    """
    match objective.cut_off:
        case CutOff.mask if objective.name is not ObjectiveName.grpo:
            return [_rescored(group, _masked) for group in scored]
        case CutOff.penalty:
            if max_new_tokens is None:
                raise ValueError("objective.cut_off = penalty needs max_new_tokens, the limit of an answer")
            penalised = partial(
                _penalised,
                scale=objective.cut_off_penalty,
                limit_tokens=max_new_tokens,
                buffer_tokens=objective.cut_off_buffer_tokens or max(1, max_new_tokens // _BUFFER_PARTS),
            )
            return [_rescored(group, penalised) for group in scored]
        case _:
            return list(scored)


def length_penalty(length_tokens: int, *, limit_tokens: int, buffer_tokens: int) -> float:
    """R_length of an answer of so many tokens: from -1 to 0 (arXiv 2503.14476, Eq. 13)."""
    excess_tokens = length_tokens - (limit_tokens - buffer_tokens)
    return -min(max(excess_tokens / buffer_tokens, 0.0), 1.0)


def _rescored(scored: ScoredGroup, change: Callable[[Rollout, Score], Score]) -> ScoredGroup:
    scores = zip(scored.group.rollouts, scored.scores, strict=True)
    return replace(scored, scores=tuple(change(rollout, score) for rollout, score in scores))


def _masked(rollout: Rollout, score: Score) -> Score:
    return score if rollout.finished else replace(score, reward=None)


def _penalised(
    rollout: Rollout, score: Score, *, scale: float, limit_tokens: int, buffer_tokens: int
) -> Score:
    if score.reward is None:
        return score
    penalty = length_penalty(len(rollout.token_ids), limit_tokens=limit_tokens, buffer_tokens=buffer_tokens)
    return replace(score, reward=score.reward + scale * penalty)
