"""Run the parts one after the other, each in processes of its own, and save the result after each."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from gpu_check.parts import NOT_RUN, NUM_LAST_LINES, SKIPPED, Ending, Part, judge, reason_to_skip, row_of

MIN_SECONDS = 5.0  # a part is not begun with less
GRACE_S = 10.0  # between SIGTERM and SIGKILL
MAX_LOG_BYTES = 2**20  # of one part
DETAILS = "GPU_CHECK_DETAILS"  # the variable with the path where a part leaves its details


def run_parts(
    parts: Sequence[Part],
    *,
    out: Path,
    log: Path,
    environment: Mapping[str, str],
    num_gpus: int,
    dry_run: bool,
    deadline: float,
    patience: float,
    say: Callable[[str], None],
) -> Iterator[dict[str, Any]]:
    """The row of each part as soon as it has ended. deadline: for all together, of time.monotonic().

    patience: how many times its limit a part may take.
    """
    for part in parts:
        given = part.dry if dry_run and part.dry is not None else part.command
        arguments, command = _filled(given, str(out)), shlex.join(["python", *_filled(given, "OUT")])
        reason = reason_to_skip(part, num_gpus=num_gpus, dry_run=dry_run)
        left_s = deadline - time.monotonic()
        if reason is None and left_s < MIN_SECONDS:
            yield row_of(part, outcome=NOT_RUN, reason="no time was left", command=command, ending=None)
        elif reason is not None:
            say(f"{part.name}: skipped: {reason}")
            yield row_of(part, outcome=SKIPPED, reason=reason, command=command, ending=None)
        else:
            say(f"{part.name}: {command}")
            limit_s = min(patience * part.limit_s, left_s)
            ending = run(arguments, environment=environment, limit_s=limit_s, log=log)
            outcome, reason = judge(part, ending, dry_run=dry_run)
            say(f"{part.name}: {outcome} in {ending.seconds:.1f} s{reason and f': {reason}'}")
            yield row_of(part, outcome=outcome, reason=reason, command=command, ending=ending)


def run(arguments: Sequence[str], *, environment: Mapping[str, str], limit_s: float, log: Path) -> Ending:
    """Run Python with `arguments`; the end of its output goes to `log` too.

    What it has started ends with it, at its limit too.
    """
    with tempfile.TemporaryDirectory(prefix="gpu-check-") as folder:
        output, details = Path(folder) / "output", Path(folder) / "details.json"
        started = time.monotonic()
        with output.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, *arguments],
                env={**os.environ, **environment, DETAILS: str(details)},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            status = _wait(process, limit_s)
        seconds = time.monotonic() - started
        text = output.read_bytes()[-MAX_LOG_BYTES:].decode(errors="replace")
        with log.open("a", encoding="utf-8") as file:
            file.write(f"$ python {shlex.join(arguments)}\n{text}\n")
        return Ending(status, seconds, limit_s, text.splitlines()[-NUM_LAST_LINES:], _details(details))


def _filled(arguments: Sequence[str], out: str) -> list[str]:
    workers = min(6, max(1, len(os.sched_getaffinity(0)) // 2))
    return [argument.format(out=out, workers=workers) for argument in arguments]


def _wait(process: subprocess.Popen[bytes], limit_s: float) -> int | None:
    try:
        return process.wait(limit_s)
    except subprocess.TimeoutExpired:
        _signal(process, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_S)
        return None
    finally:
        _signal(process, signal.SIGKILL)  # what it has left behind too
        process.wait()


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _details(path: Path) -> dict[str, Any]:
    """As far as the part got: it writes them anew whenever it knows more."""
    try:
        details = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return details if isinstance(details, dict) else {}
