"""A process that answers each line of JSON with another one, and that can be ended at any time."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import psutil

from rlstack.rewards.lines import Lines
from rlstack.telemetry.standard_error import descriptor

END_S = 5.0  # from the end of its output to that of the process
READY = "ready"  # the process's first line, once its imports are done


class Ended(NamedTuple):
    """In place of an answer: the process ended. The next one is on its way."""

    status: int  # negative: the signal
    late: bool  # it was ended here, because its time was up
    by_another: bool  # someone else has stopped or killed it, which says nothing about the request


class WorkerProcess:
    """`python -P -m MODULE ARGUMENTS`, replaced when it ends. Used by one thread at a time, closed by any."""

    def __init__(
        self,
        what: str,
        module: str,
        arguments: Sequence[str],
        *,
        timeout_s: float,
        start_timeout_s: float = 300.0,
        pass_fds: Sequence[int] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start it; `what` it is stands in messages. timeout_s: for an answer.

        pass_fds: descriptors that it gets under the same numbers; they stay open as long as this is used.
        environment: its variables; None: those of this process.
        """
        self._what = what
        # -P: the working directory may hold files named like modules.
        self._command = [sys.executable, "-P", "-m", module, *arguments]
        self._timeout_s = timeout_s
        self._start_timeout_s = start_timeout_s
        self._pass_fds = tuple(pass_fds)
        self._environment = environment
        self._closed = False
        self._ready = False
        self._lock = threading.Lock()  # starting against closing
        self._start()

    def wait_ready(self) -> None:
        """Return when the process has done its imports, which its first answer would have to wait for.

        Raises:
            RuntimeError: it ended instead, wrote something else (which the message repeats) or was late.
        """
        if self._ready:
            return
        line = self._lines.read(timeout_s=self._start_timeout_s)
        if line is None and not self._lines.is_open and self._end() == -signal.SIGKILL:
            self._replace()  # which is nothing that its imports did
            line = self._lines.read(timeout_s=self._start_timeout_s)
        if line is None and self._lines.is_open:
            raise RuntimeError(f"{self._what}: not started within {self._start_timeout_s:g} s")
        if line != READY:
            status = self._end()
            why = line or f"ended with status {status} while it started; its error output says why"
            raise RuntimeError(f"{self._what}: {why}")
        self._ready = True

    def ask(self, request: Any, *, num_parts: int = 1) -> dict[str, Any] | Ended:
        """The reply to `request`, or how the process ended: by itself, or here after `timeout_s` seconds.

        num_parts: of the request, each of which has `timeout_s`.

        A process that someone else has stopped or killed is replaced, and the next one asked; twice is once
        too often, for it may have been the kernel, which found that it takes too much memory.
        """
        text, timeout_s = json.dumps(request), num_parts * self._timeout_s
        answer = self._ask(text, timeout_s)
        return self._ask(text, timeout_s) if isinstance(answer, Ended) and answer.by_another else answer

    def _ask(self, request: str, timeout_s: float) -> dict[str, Any] | Ended:
        self.wait_ready()
        line = self._lines.exchange(request, timeout_s=timeout_s)
        if line is not None:
            reply: dict[str, Any] = json.loads(line)
            return reply
        return self._replace()

    def close(self) -> None:
        """End the process, whatever it is doing; an `ask` that waits for it raises RuntimeError."""
        with self._lock:
            self._closed = True
            self._process.kill()
        self._process.wait()

    def _start(self) -> None:
        """Start a process, which then has its imports before it."""
        with self._lock:
            if self._closed:
                raise RuntimeError(f"{self._what} is closed")
            # A session of its own: the terminal's Ctrl-C must not reach it, not even while Python starts.
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=descriptor(),  # for what a user's own code prints
                bufsize=0,
                pass_fds=self._pass_fds,
                env=self._environment,
                start_new_session=True,
            )
            assert self._process.stdin is not None and self._process.stdout is not None
            self._lines = Lines(self._process.stdin.fileno(), self._process.stdout.fileno())
            self._ready = False

    def _replace(self) -> Ended:
        late, stopped = self._lines.is_open, self._is_stopped()
        if late:
            self._process.kill()
        status = self._end()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):  # the request that it did not read
                pipe.close()
        self._start()
        killed = not late and status == -signal.SIGKILL
        return Ended(status=status, late=late, by_another=stopped or killed)

    def _end(self) -> int:
        """The status of the process, which has ended or is about to."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.wait(END_S)
        self._process.kill()
        return self._process.wait()

    def _is_stopped(self) -> bool:
        try:
            return psutil.Process(self._process.pid).status() == psutil.STATUS_STOPPED
        except psutil.NoSuchProcess:
            return False
