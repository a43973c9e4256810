"""A logger's process with a played backend: `python -m tests.played_logger NAME`, in place of the worker.

What the logger's setting says is what it does: each call is a line of NAME.calls in the run's folder, and
"raises", "dies" or "blocks" at the second step, "refuses" or "hangs" where the run begins.
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rlstack.telemetry.loggers import worker
from rlstack.telemetry.loggers.backend import Opened, Start

NAME = sys.argv[1] if len(sys.argv) > 1 else ""


class Played:
    def open(self, start: Start) -> Opened:
        self._does = start.target
        self._calls = Path(start.folder) / f"{NAME}.calls"
        self._write("open", asdict(start))
        if self._does == "refuses":
            raise ValueError("the server\n says no.")
        if self._does == "hangs":
            time.sleep(600)
        return Opened({"id": start.ids.get("id", "new")}, "over there")

    def log(self, step: int, values: dict[str, float]) -> None:
        if step == 2 and self._does == "raises":
            raise OSError("no space left")
        if step == 2 and self._does == "dies":
            os._exit(3)
        if step == 2 and self._does == "blocks":
            time.sleep(600)
        self._write("log", step, values)

    def alarm(self, step: int, title: str, text: str) -> None:
        self._write("alarm", step, title, text)

    def rewind(self, step: int) -> None:
        self._write("rewind", step)

    def finish(self, status: str, summary: dict[str, Any]) -> None:
        self._write("finish", status, summary)

    def _write(self, *call: Any) -> None:
        with self._calls.open("a", encoding="utf-8") as file:
            file.write(json.dumps(call) + "\n")


def calls(folder: Path, name: str) -> list[list[Any]]:
    """What the logger of that name was told."""
    return [json.loads(line) for line in (folder / f"{name}.calls").read_text(encoding="utf-8").splitlines()]


if __name__ == "__main__":
    worker.LAST_S, worker.PARENT_CHECK_S = 1.0, 0.1
    worker.BACKENDS = dict.fromkeys(worker.BACKENDS, "__main__:Played")
    sys.exit(worker.main(NAME))
