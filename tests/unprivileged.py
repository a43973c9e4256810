"""A neighbour on the machine: a process of another user, who has no rights to anything."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping

import pytest

NOBODY = 65534
# What it imports it imports before: this Python may lie where it cannot read.
BECOME = f"""
import os
os.setgroups([]), os.setgid({NOBODY}), os.setuid({NOBODY})
"""


def as_neighbour(
    code: str, *arguments: str, imports: str = "", environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run Python `code` as uid 65534 after `imports`; skips where only root could do that."""
    if os.geteuid() != 0:
        pytest.skip("only root can start a process of another user")
    return subprocess.run(
        [sys.executable, "-c", f"{imports}\n{BECOME}\n{code}", *arguments],
        cwd="/",
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
