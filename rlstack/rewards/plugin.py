"""A reward of the user's own: a function or a class in any module found from the working directory.

For example, in my_rewards.py, with `reward: "my_rewards:brevity"` for the task:

    def brevity(problem, answer, responses):
        return [-len(response) / 1000 for response in responses]

    class Judge:                           # "my_rewards:Judge": made once in each process, without arguments
        def __init__(self):
            self.words = Path("words.txt").read_text().split()

        def score(self, problem, answer, responses):
            return [sum(word in response for word in self.words) for response in responses]

`problem` and each of `responses` are texts, `answer` is the row's text or None. One number comes back for
each response, or None for one without a reward. All this is in reward.workers processes of their own, where
it may block, crash or print: a call that raises, returns something else or takes over reward.plugin_timeout_s
leaves its responses without a reward, and metrics.jsonl counts them as reward/errors or reward/timeouts.

A plug-in with the attribute `verdicts = True` judges answers as right, 1, or wrong, 0, and gives no other
numbers; its tasks are reported by their accuracy:

    class Exact:
        verdicts = True

        def score(self, problem, answer, responses):
            return [response.strip() == answer for response in responses]
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Sequence
from typing import Any

from rlstack.config.reward_names import plugin_workers
from rlstack.config.schema import Reward
from rlstack.data.records import Outcome, Score
from rlstack.errors import ConfigError
from rlstack.rewards.handover import hand_over
from rlstack.rewards.scorer import Question
from rlstack.rewards.worker_pool import WorkerPool
from rlstack.rewards.worker_process import Ended, WorkerProcess
from rlstack.telemetry.timeline import span

logger = logging.getLogger(__name__)


class PluginScorer:
    """A plug-in, called once for each question."""

    depends_on_batch = False

    def __init__(self, name: str, settings: Reward, *, setting: str, given: Any = None) -> None:
        """Import the plug-in `name`, "package.module:attribute", which `setting` asks for.

        given: what to use instead of importing it.

        Raises:
            ConfigError: it cannot be imported, handed over or called.
        """
        self._name = name
        self._given = handed_over(given, setting, name)
        self._timeout_s = settings.plugin_timeout_s
        module = "rlstack.rewards.plugin_worker"
        self._gives_verdicts: bool | None = None
        processes = [
            WorkerProcess(
                f"plug-in {name}",
                module,
                [name, *map(str, self._given)],
                timeout_s=self._timeout_s,
                start_timeout_s=settings.plugin_start_timeout_s,
                pass_fds=self._given,
            )
            for _ in range(plugin_workers(settings))
        ]
        try:
            self._pool = WorkerPool(processes)
        except RuntimeError as error:
            self._forget_given()
            raise ConfigError(
                f"{setting} = {name}: {error}; name a function or class that Python can import from the "
                "working directory or PYTHONPATH"
            ) from None

    @property
    def gives_verdicts(self) -> bool:
        """Whether the plug-in says so by its attribute `verdicts`. See rewards.scorer.Scorer.

        Raises:
            RuntimeError: its process ended before it could say so.
        """
        if self._gives_verdicts is None:
            (reply,) = self._pool.map(WorkerProcess.ask, [None])
            if isinstance(reply, Ended):
                raise RuntimeError(f"the process of plug-in {self._name} ended with status {reply.status}")
            self._gives_verdicts = bool(reply["verdicts"])
        return self._gives_verdicts

    def score(self, questions: Sequence[Question]) -> list[tuple[Score, ...]]:
        """One call for each question. See rewards.scorer.Scorer."""
        with span("score", role=f"rewards {self._name}"):  # all of its processes as one
            return list(self._pool.map(self._call, questions))

    def close(self) -> None:
        """End the plug-in's processes."""
        self._pool.close()
        self._forget_given()

    def _forget_given(self) -> None:
        while self._given:
            os.close(self._given.pop())

    def _call(self, process: WorkerProcess, question: Question) -> tuple[Score, ...]:
        request = [question.problem, question.answer, question.responses]
        reply = process.ask(request)
        if isinstance(reply, Ended):
            outcome = Outcome.timeout if reply.late else Outcome.error
            what = f"took over {self._timeout_s:g} s" if reply.late else f"died with status {reply.status}"
            logger.warning("plug-in %s %s on %r", self._name, what, question.problem)
            return (Score(reward=None, outcome=outcome),) * len(question.responses)
        if "error" in reply:
            logger.warning("plug-in %s failed on %r: %s", self._name, question.problem, reply["error"])
            return (Score(reward=None, outcome=Outcome.error),) * len(question.responses)
        return tuple(map(_score, reply["rewards"]))


def handed_over(given: Any, setting: str, name: str) -> list[int]:
    """The descriptor for what was given, if anything was. Raises ConfigError if it cannot be pickled."""
    try:
        return [] if given is None else [hand_over(given)]
    except Exception as error:  # whatever keeps it from being pickled
        raise ConfigError(
            f"{setting} = {name}: it cannot be sent to a process of its own ({error}); let it open what it "
            "needs when it is called, or give a class, which is made there"
        ) from None


def _score(reward: float | None) -> Score:
    """NaN and infinity would spoil every mean that they come into."""
    if reward is None:
        return Score(reward=None, outcome=Outcome.none)
    if not math.isfinite(reward):
        return Score(reward=None, outcome=Outcome.error)
    return Score(reward=reward)
