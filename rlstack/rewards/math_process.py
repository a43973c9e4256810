"""The parent's side of rewards.math_worker."""

from __future__ import annotations

import logging
import os
import signal

from rlstack.data.records import Outcome, Score
from rlstack.rewards.worker_process import Ended, WorkerProcess

# Variables that Python and its libraries start by; keys and tokens stay with the parent.
VARIABLES = ("PATH", "HOME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "VIRTUAL_ENV", "LD_LIBRARY_PATH")
PREFIXES = ("LC_", "PYTHON", "OMP_", "MKL_")

STALLED_S = 10.0  # beyond its own limit, after which the process can only have been stopped

logger = logging.getLogger(__name__)


def math_process(timeout_s: float) -> WorkerProcess:
    """A process that takes [gold, answer or None] and ends itself after `timeout_s` seconds on one.

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


def verify(process: WorkerProcess, key: tuple[str, str | None]) -> Score:
    """1.0 if the second of (gold, answer) equals the first, else 0.0; no reward if there is no verdict.

    With None as answer it is 1.0 if the gold answer can be read at all.
    """
    gold, answer = key
    level = logging.DEBUG if answer is None else logging.WARNING
    reply = process.ask([gold, answer])
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
