"""Folders that tools/gpu_static.py has put beside the packages, and programs that run in the environment."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
ENGINE = Path(sys.prefix) / "transformer-engine"  # its Python, apart: megatron-core would use it if it could
EXTENSION = Path(sys.prefix) / "transformer-engine-torch"  # the source of its extension
TIMEOUT_S = 600


def run(*arguments: object, paths: tuple[Path, ...] = (), **variables: str) -> str:
    """The standard output of `python *arguments`, which finds modules in `paths` too.

    Fails with the end of what it has written if it fails.
    """
    path = os.pathsep.join(map(str, (*paths, ROOT, ROOT / "kernels")))
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": path} | variables,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout
