"""When the rollouts of one call to an engine are finished, with continuous batching. Pure."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from rlstack.tuning.parts import Generation, Workload

GOLDEN_RATIO = (math.sqrt(5) - 1) / 2


@lru_cache(maxsize=256)
def lengths_of(workload: Workload, num_rollouts: int) -> tuple[int, ...]:
    """Lengths of a call's rollouts in tokens: the workload's distribution, evenly drawn and well mixed.

    Rollout k gets the quantile at k times the golden ratio, modulo 1: any stretch of rollouts has about the
    whole distribution, and nothing depends on chance.
    """
    lengths = sorted(workload.answer_tokens)
    quantiles = ((k + 0.5) * GOLDEN_RATIO % 1 for k in range(num_rollouts))
    return tuple(max(1, round(lengths[int(quantile * len(lengths))])) for quantile in quantiles)


@lru_cache(maxsize=256)
def finish_times(
    generation: Generation, lengths: tuple[int, ...], *, prompt_tokens: float, max_num_seqs: int
) -> tuple[float, ...]:
    """Seconds from the call's start to each rollout's last token, the engine doing nothing else.

    At most `max_num_seqs` rollouts run together; a place that is free goes to the next in order.
    """
    starts, ends = decoding_steps(lengths, max_num_seqs)
    num_starting = np.bincount(starts, minlength=max(ends, default=0) + 1)
    num_running = np.cumsum(num_starting - np.bincount(ends, minlength=len(num_starting)))[:-1]
    step_s = generation.decode_s + num_running * generation.decode_s_per_sequence
    step_s += num_starting[:-1] * prompt_tokens * generation.prefill_s_per_token
    passed_s = np.concatenate([[0.0], np.cumsum(step_s)]) + generation.call_s
    return tuple(float(passed_s[end]) for end in ends)


def decoding_steps(lengths: Sequence[int], max_num_seqs: int) -> tuple[list[int], list[int]]:
    """The decoding step that each rollout starts with, and the first that it no longer takes part in."""
    starts, ends = [], []
    places = [0] * min(max_num_seqs, len(lengths))  # when each becomes free
    for length in lengths:
        start = heapq.heappop(places)
        heapq.heappush(places, start + length)
        starts.append(start)
        ends.append(start + length)
    return starts, ends
