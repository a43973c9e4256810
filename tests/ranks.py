"""Programs of which one process is one rank."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from rlstack.collectives import SECRET

ROOT = Path(__file__).parents[1]


def run_ranks(arguments: Iterable[Sequence[object]], *, timeout_s: float, **environment: str) -> None:
    """Run `python *arguments` for every rank at once, in the root of the project, with one thread each.

    Fails with the output of the ranks that failed; none outlives the call.
    """
    ranks = [
        subprocess.Popen(
            [sys.executable, *map(str, of_rank)],
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1", SECRET: "of the test"} | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for of_rank in arguments
    ]
    try:
        outputs = [rank.communicate(timeout=timeout_s)[0] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    failed = [output for rank, output in zip(ranks, outputs, strict=True) if rank.returncode != 0]
    assert not failed, "\n".join(failed)
