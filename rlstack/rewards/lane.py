"""One reward at work beside whatever its callers do meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from rlstack.data.records import Score
from rlstack.rewards.scorer import Question, Scorer

Scores = tuple[Score, ...]


class Lane:
    """Begins to score what it is given in the order given.

    A reward that `waits_for_batch` gets one call after the other, for what is scored together changes its
    scores. Any other gets enough calls at once to keep its workers busy, and each is done as soon as it can
    be: to put those that wait together would hold the first of them up until the last is done.
    """

    def __init__(self, name: str, scorer: Scorer, *, num_workers: int) -> None:
        """num_workers: processes of the scorer that work side by side."""
        self.waits_for_batch = scorer.depends_on_batch
        self._scorer = scorer
        num_calls = 1 if self.waits_for_batch else num_workers + 1  # one is ready when another ends
        self._threads = ThreadPoolExecutor(num_calls, thread_name_prefix=f"reward {name}")

    def start(self, questions: Sequence[Question]) -> Future[list[Scores]]:
        """One tuple of scores for each question, in their order; or what the scorer raised."""
        return self._threads.submit(self._scorer.score, questions)

    def close(self) -> None:
        """Take no more. What is being scored ends when the scorer is closed."""
        self._threads.shutdown(wait=False, cancel_futures=True)
