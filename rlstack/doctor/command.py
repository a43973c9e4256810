"""What `rlstack doctor` and `python -P -m rlstack.doctor` do."""

from __future__ import annotations

import importlib.util
import shutil
import sys

from rlstack.doctor import show
from rlstack.doctor.examine import Request, examine


def run(request: Request, *, as_json: bool) -> int:
    """Examine and print; the exit status: 0 without a problem, 1 with one."""
    try:
        findings = examine(request, say=_say)
    finally:
        _say("")
    encoding = sys.stdout.encoding or "ascii"
    if as_json:
        print(show.as_json(findings))
        return 1 if show.num_problems(findings) else 0
    if sys.stdout.isatty() and importlib.util.find_spec("rich") is not None:
        show.print_table(findings, encoding=encoding)
    else:
        print(show.as_text(findings, encoding=encoding))
    print(f"\n{show.summary(findings, is_whole=not (request.only or request.skip))}")
    return 1 if show.num_problems(findings) else 0


def _say(text: str) -> None:
    """On a terminal, one line that the next is written over."""
    if sys.stderr.isatty():
        width = shutil.get_terminal_size().columns - 1
        sys.stderr.write(f"\r\033[K{text[:width]}")
        sys.stderr.flush()
