"""The parent's side of rewards.math_worker."""

from __future__ import annotations

import contextlib
import json
import logging
import signal
import subprocess
import sys
import threading
from typing import Any

from rlstack.data.records import Outcome, Score

logger = logging.getLogger(__name__)


class MathProcess:
    """One math-verify process, replaced whenever it ends. Used by one thread at a time, closed by any."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._closed = False
        self._ready = False
        self._lock = threading.Lock()  # starting against closing
        self._start()

    def wait_ready(self) -> None:
        """Return when the process has done its imports, which its first answer would have to wait for.

        Raises:
            RuntimeError: it ended instead.
        """
        if not self._ready:
            if self._read_line() != "ready\n":
                raise RuntimeError(
                    f"the math verifier's process ended with status {self._process.wait()} while it started; "
                    "its error output says why"
                )
            self._ready = True

    def verify(self, gold: str, answer: str) -> Score:
        """1.0 if `answer` equals `gold`, else 0.0; no reward if there is no verdict within the limit."""
        self.wait_ready()
        reply = self._ask([gold, answer])
        if reply is None:
            return self._replace(gold, answer)
        if "error" in reply:
            logger.warning("math-verify failed on %r against %r: %s", answer, gold, reply["error"])
            return Score(reward=None, outcome=Outcome.error)
        return Score(reward=float(reply["equal"]))

    def close(self) -> None:
        """End the process, whatever it is doing; a `verify` that waits for it raises RuntimeError."""
        with self._lock:
            self._closed = True
            self._process.kill()
        self._process.wait()

    def _start(self) -> None:
        """Start a process, which then has its imports before it."""
        with self._lock:
            if self._closed:
                raise RuntimeError("the math verifier is closed")
            # -P: the working directory may hold files named like modules. A session of its own: the
            # terminal's Ctrl-C must not reach it, not even while Python starts.
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "rlstack.rewards.math_worker", str(self._timeout_s)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
            self._ready = False

    def _replace(self, gold: str, answer: str) -> Score:
        """What the process's end says about the item that it was given; the next process is on its way."""
        status = self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):  # the request that it did not read
                pipe.close()
        self._start()
        if status == -signal.SIGALRM:
            logger.warning("math-verify took over %s s on %r against %r", self._timeout_s, answer, gold)
            return Score(reward=None, outcome=Outcome.timeout)
        logger.warning("math-verify died with status %s on %r against %r", status, answer, gold)
        return Score(reward=None, outcome=Outcome.error)

    def _ask(self, request: list[str]) -> dict[str, Any] | None:
        """The reply to `request`; None if the process ended."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            return None
        line = self._read_line()
        return json.loads(line) if line.endswith("\n") else None

    def _read_line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()
