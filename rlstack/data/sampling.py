"""Which prompts a step trains on."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from functools import lru_cache

from rlstack.data.records import Prompt

CYCLE = 1000  # slots after which the mixture of tasks repeats: weights are kept to one part in this many


class PromptSampler:
    """Prompts as a pure function of the seed and the step, so that a run can stop, resume or look ahead.

    The run is a sequence of slots, `num_prompts` to a step. The tasks share the slots by weight, evenly
    spread; the slots of a task walk through its prompts, in a new random order in every epoch.
    """

    def __init__(
        self, tasks: Mapping[str, Sequence[Prompt]], weights: Mapping[str, float], *, seed: int
    ) -> None:
        assert tasks and all(tasks.values()) and set(tasks) == set(weights)
        self._tasks = dict(tasks)
        self._seed = seed
        self._cycle = _interleave(_quotas(weights))
        # _before[task][i]: the task's slots among the first i of a cycle
        self._before = {task: [0] for task in tasks}
        for slot in self._cycle:
            for task, counts in self._before.items():
                counts.append(counts[-1] + (task == slot))
        # Two epochs of each task: a step may straddle the end of one.
        self._order = lru_cache(maxsize=2 * len(tasks))(self._shuffle)

    def take(self, step: int, num_prompts: int) -> list[Prompt]:
        """The prompts of `step`, whatever was asked before; `num_prompts` must not change within a run."""
        return [self._at(slot) for slot in range(step * num_prompts, (step + 1) * num_prompts)]

    def _at(self, slot: int) -> Prompt:
        num_cycles, offset = divmod(slot, len(self._cycle))
        task = self._cycle[offset]
        counts = self._before[task]
        epoch, index = divmod(num_cycles * counts[-1] + counts[offset], len(self._tasks[task]))
        return self._tasks[task][self._order(task, epoch)[index]]

    def _shuffle(self, task: str, epoch: int) -> list[int]:
        order = list(range(len(self._tasks[task])))
        random.Random(f"prompts/{self._seed}/{task}/{epoch}").shuffle(order)
        return order


def _quotas(weights: Mapping[str, float]) -> dict[str, int]:
    """Slots per cycle of each task: at least one, in total about CYCLE."""
    assert all(weight > 0 for weight in weights.values())
    total = sum(weights.values())
    return {task: max(1, round(CYCLE * weight / total)) for task, weight in weights.items()}


def _interleave(quotas: Mapping[str, int]) -> list[str]:
    """The tasks of one cycle, each evenly spread (smooth weighted round-robin, as in nginx)."""
    total = sum(quotas.values())
    credit = dict.fromkeys(quotas, 0)
    cycle = []
    for _ in range(total):
        for task, quota in quotas.items():
            credit[task] += quota
        chosen = max(credit, key=credit.__getitem__)
        credit[chosen] -= total
        cycle.append(chosen)
    return cycle
