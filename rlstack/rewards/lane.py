"""One reward at work in a thread of its own."""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from rlstack.data.records import Score
from rlstack.rewards.scorer import Question, Scorer

Scores = tuple[Score, ...]
JOIN_S = 1.0  # for what was being scored when the lane was closed


@dataclass(frozen=True, slots=True)
class _Job:
    questions: Sequence[Question]
    done: Future[list[Scores]] = field(default_factory=Future)


class Lane:
    """Scores what it is given in the order given, beside whatever its callers do meanwhile.

    Questions that came while it was busy are scored together, unless it `waits_for_batch`: then what is
    scored together changes the scores, and is what start() is given.
    """

    def __init__(self, name: str, scorer: Scorer) -> None:
        self.waits_for_batch = scorer.depends_on_batch
        self._scorer = scorer
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=f"reward {name}", daemon=True)
        self._thread.start()

    def start(self, questions: Sequence[Question]) -> Future[list[Scores]]:
        """One tuple of scores for each question, in their order; or what the scorer raised."""
        job = _Job(questions)
        self._jobs.put(job)
        return job.done

    def close(self) -> None:
        """Take no more; what is being scored comes to its end first if it does so at once."""
        self._jobs.put(None)
        self._thread.join(JOIN_S)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            jobs, goes_on = self._with_those_behind(job)
            _score_together(self._scorer, jobs)
            if not goes_on:
                return

    def _with_those_behind(self, job: _Job) -> tuple[list[_Job], bool]:
        """The jobs to be scored together, of which `job` is the first; False if they are the last."""
        jobs = [job]
        while not self.waits_for_batch:
            try:
                following = self._jobs.get_nowait()
            except queue.Empty:
                break
            if following is None:
                return jobs, False
            jobs.append(following)
        return jobs, True


def _score_together(scorer: Scorer, jobs: Sequence[_Job]) -> None:
    try:
        scores = iter(scorer.score([question for job in jobs for question in job.questions]))
        results = [[next(scores) for _ in job.questions] for job in jobs]
    except BaseException as error:
        for job in jobs:
            job.done.set_exception(error)
        return
    for job, result in zip(jobs, results, strict=True):
        job.done.set_result(result)
