"""The process of a logger: `python -P -m rlstack.telemetry.loggers.worker NAME`.

Reads one JSON line at a time, backend.Start first and then `[method, arguments]` of a backend.Backend, and
answers each with one: `{"result": ...}`, or `{"error": str}`, which is its last. Where the lines end before
"finish", the run has been killed: it is finished as interrupted.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any, TextIO

from rlstack.telemetry.loggers.backend import Backend, Start
from rlstack.telemetry.logs import capture_output

BACKENDS = {
    "tensorboard": "rlstack.telemetry.loggers.to_tensorboard:TensorBoard",
    "wandb": "rlstack.telemetry.loggers.to_wandb:WeightsAndBiases",
    "mlflow": "rlstack.telemetry.loggers.to_mlflow:MLflow",
}
LAST_S = 30.0  # for the end of a run that has been killed
PARENT_CHECK_S = 1.0
MOST_CHARS = 300  # of an error


def main(name: str) -> int:
    """Answer requests from stdin until it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's business
    threading.Thread(target=_end_after, args=(os.getppid(),), daemon=True).start()
    requests = os.fdopen(os.dup(sys.stdin.fileno()), encoding="utf-8")
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1, encoding="utf-8")
    start = Start(**json.loads(requests.readline()))
    capture_output(Path(start.folder) / "logs" / f"{name}.log")
    try:
        _serve(_load(BACKENDS[name]), start, requests, replies)
    except Exception as error:
        sys.excepthook(*sys.exc_info())
        _answer(replies, {"error": _in_one_line(error)})
        return 1
    return 0


def _serve(backend: Backend, start: Start, requests: TextIO, replies: TextIO) -> None:
    finished = False
    _answer(replies, {"result": backend.open(start)._asdict()})
    for line in requests:
        method, arguments = json.loads(line)
        getattr(backend, method)(*arguments)
        finished = finished or method == "finish"
        _answer(replies, {"result": None})
    if not finished:
        backend.finish("interrupted", {})


def _answer(replies: TextIO, answer: dict[str, Any]) -> None:
    with contextlib.suppress(BrokenPipeError):  # of a driver that has been killed
        print(json.dumps(answer), file=replies)


def _end_after(parent: int) -> None:
    """End this process LAST_S seconds after its parent, whatever it is doing."""
    while os.getppid() == parent:
        time.sleep(PARENT_CHECK_S)
    time.sleep(LAST_S)
    os._exit(1)


def _load(place: str) -> Backend:
    module, _, name = place.partition(":")
    made: Any = getattr(importlib.import_module(module), name)
    backend: Backend = made()
    return backend


def _in_one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:MOST_CHARS].rstrip(".")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
