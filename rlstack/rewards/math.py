"""The math verifier: boxed answers compared with gold answers, in processes that can be ended."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType

from rlstack.data.boxed import boxed_answer, num_parts
from rlstack.data.gold import accepted_answers
from rlstack.data.records import Outcome, Score
from rlstack.rewards.math_process import math_process, verify
from rlstack.rewards.scorer import Question, regroup
from rlstack.rewards.worker_pool import WorkerPool
from rlstack.telemetry.timeline import span

CACHE_SIZE = 100_000  # verdicts
BATCH_SIZE = 16  # answers of one message to a process


class MathVerifier:
    """Scores answers in `workers` processes, `timeout_s` seconds of wall clock at most for each.

    Usable from any thread, also from several at once, and from Ray actors.
    """

    def __init__(self, workers: int, timeout_s: float) -> None:
        self._pool = WorkerPool([math_process(timeout_s) for _ in range(workers)])
        self._cache: OrderedDict[tuple[str, str], Score] = OrderedDict()
        self._cache_lock = threading.Lock()

    def score(self, items: Sequence[tuple[str, str]]) -> list[Score]:
        """1.0 for each (text, gold answer) whose last boxed expression equals the gold answer, else 0.0.

        Equal items are verified once, and verdicts are remembered. Where there is no verdict, the reward is
        None and the outcome says why: timeout, or error (math-verify raised, or its process died).
        """
        parts = {gold: num_parts(gold) for _, gold in items}
        keys = [(gold, boxed_answer(text, num_parts=parts[gold])) for text, gold in items]
        distinct = dict.fromkeys((gold, answer) for gold, answer in keys if answer is not None)
        verdicts = self._recall(distinct)
        unknown = [key for key in distinct if key not in verdicts]
        found = dict(zip(unknown, self._verified(unknown), strict=True))
        self._remember(found)
        verdicts |= found
        return [Score(reward=0.0) if answer is None else verdicts[gold, answer] for gold, answer in keys]

    def check_golds(self, golds: Sequence[str]) -> list[Score]:
        """1.0 for each gold answer that is read as a value, as words or the like, else 0.0; see `score`."""
        return self._verified([(gold, None) for gold in golds])

    def _verified(self, keys: Sequence[tuple[str, str | None]]) -> list[Score]:
        """See `verify`; a few at a time, since each message costs this process more than an answer does."""
        batches = [keys[start : start + BATCH_SIZE] for start in range(0, len(keys), BATCH_SIZE)]
        return [score for scores in self._pool.map(verify, batches) for score in scores]

    def close(self) -> None:
        """End the processes at once; a `score` that still waits for one raises RuntimeError."""
        self._pool.close()

    def __enter__(self) -> MathVerifier:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _recall(self, keys: Iterable[tuple[str, str]]) -> dict[tuple[str, str], Score]:
        with self._cache_lock:
            known = {key: self._cache[key] for key in keys if key in self._cache}
            for key in known:
                self._cache.move_to_end(key)
        return known

    def _remember(self, verdicts: Mapping[tuple[str, str], Score]) -> None:
        with self._cache_lock:
            for key, score in verdicts.items():
                if score.outcome is Outcome.ok:  # a busy machine may do better next time with others
                    self._cache[key] = score
            while len(self._cache) > CACHE_SIZE:
                self._cache.popitem(last=False)


class MathScorer:
    """The math verifier as a reward."""

    depends_on_batch = False
    gives_verdicts = True

    def __init__(self, workers: int, timeout_s: float) -> None:
        self._verifier = MathVerifier(workers, timeout_s)

    def score(self, questions: Sequence[Question]) -> list[tuple[Score, ...]]:
        """See rewards.scorer.Scorer. Every question has an answer, which the data's loader sees to."""
        golds = []
        for question in questions:
            assert question.answer is not None, question.problem
            golds += [accepted_answers(question.answer)] * len(question.responses)
        responses = [response for question in questions for response in question.responses]
        items = [(text, gold) for text, of_text in zip(responses, golds, strict=True) for gold in of_text]
        with span("score", role="rewards math"):  # all of its processes as one
            verdicts = iter(self._verifier.score(items))
            return regroup([_best([next(verdicts) for _ in of_text]) for of_text in golds], questions)

    def close(self) -> None:
        """End the verifier's processes."""
        self._verifier.close()


def _best(verdicts: Sequence[Score]) -> Score:
    """The verdict on an answer of which any of several gold answers is right."""
    if len(verdicts) == 1:
        return verdicts[0]
    return max(verdicts, key=lambda verdict: (verdict.reward == 1.0, verdict.outcome is not Outcome.ok))
