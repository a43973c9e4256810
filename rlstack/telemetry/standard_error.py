"""Standard error of a command: Python's for the user's terminal, descriptor 2 for a log while libraries run.

C++ code (Ray, torch) writes to descriptor 2 as it is, between the lines of a run and through its live panel.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_terminal: int | None = None  # the descriptor of sys.stderr once it is not 2


def set_apart() -> None:
    """Give sys.stderr, and so all tracebacks, a descriptor of its own; for a process that is rlstack's alone.

    Nothing changes where it has one already or is no file.
    """
    global _terminal
    if _terminal is not None or not isinstance(sys.stderr, io.TextIOWrapper) or sys.stderr.fileno() != 2:
        return
    sys.stderr.flush()
    _terminal = os.dup(2)  # which no other program gets
    sys.stderr = os.fdopen(
        _terminal, "w", buffering=1, encoding=sys.stderr.encoding, errors=sys.stderr.errors
    )


def descriptor() -> int | None:
    """Standard error for processes that show the user something, such as own rewards; None: inherit it."""
    return _terminal


@contextmanager
def libraries_to(log: Path) -> Iterator[None]:
    """Have what is written to descriptor 2 appended to `log`, which is there if anything was.

    Processes that start meanwhile inherit it. Without set_apart before, everything stays as it is.
    """
    if _terminal is None:
        yield
        return
    log.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
    try:
        os.dup2(file, 2)
        yield
    finally:
        os.dup2(_terminal, 2)
        if os.fstat(file).st_size == 0:
            log.unlink(missing_ok=True)
        os.close(file)
