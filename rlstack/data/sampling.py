"""Which prompts a step trains on."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import lru_cache
from itertools import accumulate, pairwise
from math import floor

from rlstack.data.prompt_table import longest_tokens
from rlstack.data.records import Prompt

# 2^64 over the golden ratio, odd: multiples of it modulo 2^64 never bunch up (Knuth, TAOCP 3, section 6.4).
GOLDEN = 0x9E3779B97F4A7C15


class PromptSampler:
    """Prompts as a pure function of the seed and the step, so that a run can stop, resume or look ahead.

    The tasks share the prompts of each step by weight, as closely as integers allow: of n prompts, a task
    with the share w has n w, rounded down or up, and over the steps the rounding evens out. A task walks
    through its prompts in a new random order in every epoch.
    """

    def __init__(
        self, tasks: Mapping[str, Sequence[Prompt]], weights: Mapping[str, float], *, seed: int
    ) -> None:
        assert tasks and all(tasks.values()) and set(tasks) == set(weights)
        self._tasks = dict(tasks)
        self._weights = [weights[task] for task in tasks]
        self._seed = seed
        self._taken: dict[int, list[list[int]]] = {}
        # Two epochs of each task: a step may straddle the end of one.
        self._order = lru_cache(maxsize=2 * len(tasks))(self._shuffle)

    @property
    def max_tokens(self) -> int:
        """Of the longest prompt."""
        return max(map(longest_tokens, self._tasks.values()))

    @property
    def sizes(self) -> dict[str, int]:
        """The number of prompts of each task."""
        return {task: len(prompts) for task, prompts in self._tasks.items()}

    @property
    def tasks(self) -> Mapping[str, Sequence[Prompt]]:
        """All prompts of each task, by its name."""
        return self._tasks

    def take(self, step: int, num_prompts: int) -> list[Prompt]:
        """The prompts of `step`, whatever was asked before; `num_prompts` must not change within a run."""
        before, after = self._taken_before(step, num_prompts), self._taken_before(step + 1, num_prompts)
        places = [
            ((index - first + 0.5) / (end - first), task, index)
            for task, first, end in zip(self._tasks, before, after, strict=True)
            for index in range(first, end)
        ]
        return [self._at(task, index) for _, task, index in sorted(places)]  # the tasks evenly spread

    def _taken_before(self, step: int, num_prompts: int) -> list[int]:
        """How many prompts of each task the steps before `step` take."""
        taken = self._taken.setdefault(num_prompts, [[0] * len(self._weights)])
        while len(taken) <= step:
            shares = split_by_weight(num_prompts, self._weights, step=len(taken) - 1)
            taken.append([count + share for count, share in zip(taken[-1], shares, strict=True)])
        return taken[step]

    def _at(self, task: str, index: int) -> Prompt:
        prompts = self._tasks[task]
        epoch, place = divmod(index, len(prompts))
        return prompts[self._order(task, epoch)[place]]

    def _shuffle(self, task: str, epoch: int) -> list[int]:
        order = list(range(len(self._tasks[task])))
        random.Random(f"prompts/{self._seed}/{task}/{epoch}").shuffle(order)
        return order


def split_by_weight(num_items: int, weights: Sequence[float], *, step: int) -> list[int]:
    """`num_items` in parts proportional to `weights`, each exact share rounded down or up.

    Which are rounded up changes with `step`, so that the parts' means over many steps are the exact shares:
    systematic sampling (Madow 1949), with offsets that are spread evenly rather than drawn. The shares lie
    end to end on a line; a part is the number of marks, spaced by 1, that fall on its share.
    """
    assert all(weight > 0 for weight in weights)
    offset = Fraction(step * GOLDEN % 2**64, 2**64)
    ends = list(accumulate(map(Fraction, weights), initial=Fraction(0)))
    marks = [floor(num_items * end / ends[-1] + offset) for end in ends]
    return [after - before for before, after in pairwise(marks)]
