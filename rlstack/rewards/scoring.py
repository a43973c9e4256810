"""The scores of a batch of groups that come one by one, in any order."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future

from rlstack.data.records import Prompt, RolloutGroup, ScoredGroup
from rlstack.rewards.lane import Lane, Scores
from rlstack.rewards.scorer import Question

CHUNK_PROMPTS = 64  # that a reward whose scores depend on the batch gets together


class Scoring:
    """Gives every group to its reward: at once, or with its neighbours where scores depend on the batch.

    Neighbours are CHUNK_PROMPTS prompts of one reward in the order of the batch.

    What a reward gets together never depends on when the groups come, unless it cannot matter.
    """

    def __init__(self, prompts: Sequence[Prompt], lane_of: Mapping[str, Lane]) -> None:
        """prompts: those of the batch; lane_of: the reward of each task."""
        self._lock = threading.Lock()
        self._groups: dict[int, RolloutGroup] = {}
        self._lanes = [lane_of[prompt.task] for prompt in prompts]
        self._chunks = _chunks(self._lanes)
        self._num_missing = {chunk[0]: len(chunk) for chunk in self._chunks}  # by its first position
        self._started: dict[int, tuple[Future[list[Scores]], int]] = {}  # a call, and the place in it

    def add(self, position: int, group: RolloutGroup) -> None:
        """`group` answers prompt `position` of the batch; each does once. From any thread."""
        lane = self._lanes[position]
        with self._lock:
            assert position not in self._groups
            self._groups[position] = group
            together = self._chunks[position]
            self._num_missing[together[0]] -= 1
            if not self._num_missing[together[0]]:
                self._start(lane, together)

    def result(self) -> list[ScoredGroup]:
        """The groups in the order of their prompts, once all have been added and scored.

        Raises what a reward could not score anything without.
        """
        calls = [self._started[position] for position in range(len(self._lanes))]
        return [
            ScoredGroup(group=self._groups[position], scores=call.result()[place])
            for position, (call, place) in enumerate(calls)
        ]

    def _start(self, lane: Lane, positions: Sequence[int]) -> None:
        call = lane.start([_question(self._groups[position]) for position in positions])
        for place, position in enumerate(positions):
            self._started[position] = (call, place)


def _chunks(lanes: Sequence[Lane]) -> list[tuple[int, ...]]:
    """For each position those that are scored together with it, itself among them."""
    shares: dict[Lane, list[int]] = {}
    for position, lane in enumerate(lanes):
        shares.setdefault(lane, []).append(position)
    together: dict[int, tuple[int, ...]] = {}
    for lane, share in shares.items():
        size = CHUNK_PROMPTS if lane.waits_for_batch else 1
        for start in range(0, len(share), size):
            chunk = tuple(share[start : start + size])
            together |= dict.fromkeys(chunk, chunk)
    return [together[position] for position in range(len(lanes))]


def _question(group: RolloutGroup) -> Question:
    prompt = group.prompt
    return Question(
        problem=prompt.problem,
        answer=prompt.answer,
        responses=tuple(rollout.text for rollout in group.rollouts),
    )
