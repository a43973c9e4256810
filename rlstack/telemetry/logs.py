"""What goes to a file, not to the terminal: third-party output and tracebacks."""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path

ERROR_LOG = "error.log"


def write_traceback(error: BaseException, folder: Path) -> Path:
    """Write the error's traceback to ERROR_LOG in `folder`; the file that was written."""
    path = folder / ERROR_LOG
    path.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
    return path


def capture_output(path: Path) -> None:
    """Send everything that this process, its libraries and its children write to `path`, appending.

    Works on the file descriptors 1 and 2, so that C++ code and processes started later are caught too.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)
    # A line at a time, so that the file is complete when the process is killed.
    sys.stdout = os.fdopen(1, "w", buffering=1, encoding="utf-8", errors="replace", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, encoding="utf-8", errors="replace", closefd=False)
