"""The parent's side of rewards.math_worker."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Mapping, Sequence

from rlstack.data.records import Outcome, Score
from rlstack.rewards.worker_process import Ended, WorkerProcess

# Variables that Python and its libraries start by; keys and tokens stay with the parent.
VARIABLES = ("PATH", "HOME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "VIRTUAL_ENV", "LD_LIBRARY_PATH")
PREFIXES = ("LC_", "PYTHON", "OMP_", "MKL_")

STALLED_S = 10.0  # beyond its own limit, after which the process can only have been stopped

logger = logging.getLogger(__name__)


def math_process(timeout_s: float) -> WorkerProcess:
    """A process that takes pairs [gold, answer or None] and ends itself after `timeout_s` seconds on one.

    Answers may be made to attack what reads them: it gets no secret of the environment.
    """
    return WorkerProcess(
        "the math verifier",
        "rlstack.rewards.math_worker",
        [str(timeout_s)],
        timeout_s=timeout_s + STALLED_S,
        environment={
            name: value
            for name, value in os.environ.items()
            if name in VARIABLES or name.startswith(PREFIXES)
        },
    )


def verify(process: WorkerProcess, keys: Sequence[tuple[str, str | None]]) -> list[Score]:
    """For each (gold, answer) 1.0 if the second equals the first, else 0.0; no reward without a verdict.

    With None as answer it is 1.0 if the gold answer can be read at all. The pairs go to the process together.
    Where that ends, nothing says which pair it was at: each then goes alone, and one costs no other its
    verdict.
    """
    reply = process.ask(keys, num_parts=len(keys))
    if not isinstance(reply, Ended):
        return [_score(key, part) for key, part in zip(keys, reply["replies"], strict=True)]
    if len(keys) == 1:
        return [_score(keys[0], reply)]
    return [score for key in keys for score in verify(process, [key])]


def _score(key: tuple[str, str | None], reply: Mapping[str, bool | str] | Ended) -> Score:
    gold, answer = key
    level = logging.DEBUG if answer is None else logging.WARNING
    if isinstance(reply, Ended):
        if reply.late or reply.status == -signal.SIGALRM:
            logger.log(level, "math-verify was out of time on %r against %r", answer, gold)
            return Score(reward=None, outcome=Outcome.timeout)
        logger.log(level, "math-verify died with status %s on %r against %r", reply.status, answer, gold)
        return Score(reward=None, outcome=Outcome.error)
    if "error" in reply:
        logger.log(level, "math-verify failed on %r against %r: %s", answer, gold, reply["error"])
        return Score(reward=None, outcome=Outcome.error)
    return Score(reward=float(reply["equal"]))
