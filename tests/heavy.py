"""What a command imports, seen from outside: a process of its own runs it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

HEAVY = ("torch", "ray", "vllm", "transformers", "megatron")


def run_without(names: Sequence[str], *calls: tuple[Sequence[str], int]) -> subprocess.CompletedProcess[str]:
    """Call rlstack's commands, each with its arguments and the exit status that it has to end with.

    Fails if afterwards one of the packages `names` has been imported.
    """
    code = f"""
import sys
from rlstack.cli import app
for arguments, status in {[(list(arguments), status) for arguments, status in calls]!r}:
    try:
        app(arguments)
    except SystemExit as end:
        assert end.code == status, (arguments, end.code)
    else:
        assert status == 0, arguments
found = [name for name in {tuple(names)!r} if name in sys.modules]
sys.exit(f"imported {{found}}" if found else 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done
