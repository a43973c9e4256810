"""The driver's end of a logger's process. Nothing here waits but `opened` and `close`, which have limits."""

from __future__ import annotations

import contextlib
import json
import queue
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import asdict
from typing import Any

from rlstack.telemetry.loggers.backend import Opened, Start
from rlstack.telemetry.run_dir import to_json

MOST_WAITING = 1000  # requests; each step is one
END_S = 5.0  # from the last answer to the end of the process

WORKER = "rlstack.telemetry.loggers.worker"


class LoggerError(Exception):
    """A logger's process cannot go on; the message says why."""


class Remote:
    """A logger in a process of its own. Once it has failed, what it is sent goes nowhere."""

    def __init__(self, name: str, start: Start, *, failed: Callable[[str, str], object]) -> None:
        """Start it. failed: is told once, from any thread, by which name what has failed once it was open."""
        self.name = name
        self._failed = failed
        self._opened: Future[Opened] = Future()
        self._requests: queue.Queue[str | None] = queue.Queue(MOST_WAITING)
        self._lock = threading.Lock()
        self._is_working = True
        # -P: the working directory may hold files named like modules. A session of its own: Ctrl-C is the
        # driver's business.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", WORKER, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # until it has opened its log
            start_new_session=True,
            text=True,
            encoding="utf-8",
        )
        self._thread = threading.Thread(target=self._run, args=(start,), name=f"{name} logger", daemon=True)
        self._thread.start()

    def opened(self, timeout_s: float) -> Opened:
        """How it has begun.

        Raises:
            LoggerError: it could not, or not within `timeout_s` seconds; its process has ended.
        """
        try:
            return self._opened.result(timeout_s)
        except TimeoutError:
            self.kill()
            raise LoggerError(f"did not answer within {timeout_s:.0f} s") from None

    def send(self, method: str, *arguments: Any) -> None:
        """Have a method of backend.Backend called over there, in the order of these calls."""
        self._put(to_json([method, arguments]))

    def close(self, timeout_s: float) -> None:
        """Let it do what it was sent, for at most `timeout_s` seconds, and end its process."""
        self._put(None)
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            self._fail(f"was not done {timeout_s:.0f} s after the run's end")
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(END_S)
        self.kill()

    def kill(self) -> None:
        """End the process, whatever it is doing."""
        self._is_working = False
        self._process.kill()
        self._process.wait()

    def _put(self, request: str | None) -> None:
        if not self._is_working:
            return
        try:
            self._requests.put_nowait(request)
        except queue.Full:
            self._fail(f"is {MOST_WAITING} steps behind")

    def _fail(self, why: str) -> None:
        with self._lock:
            if not self._is_working:
                return
            self._is_working = False
        self._process.kill()
        self._failed(self.name, why)

    def _run(self, start: Start) -> None:
        """Of the thread: one request after the other, each of which is answered."""
        try:
            self._opened.set_result(Opened(**self._ask(to_json(asdict(start)))))
        except LoggerError as error:
            self._opened.set_exception(error)
            return
        try:
            while (request := self._requests.get()) is not None:
                self._ask(request)
        except LoggerError as error:
            self._fail(str(error))
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()

    def _ask(self, request: str) -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None
        with contextlib.suppress(OSError):  # of a process that has ended; its last line says why
            self._process.stdin.write(request + "\n")
            self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise LoggerError(f"its process ended with status {self._process.wait()}")
        answer = json.loads(line)
        if "error" in answer:
            raise LoggerError(answer["error"])
        return answer["result"]
