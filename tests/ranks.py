"""Programs of which one process is one rank."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from unittest import mock

from rlstack.collectives import SECRET
from rlstack.config.machine import gpu_names

ROOT = Path(__file__).parents[1]
OF_ALL_RANKS = {"OMP_NUM_THREADS": "1", SECRET: "of the test"}
POLICY = "rlstack.policy.worker"  # with megatron-core, which takes longer to import than most tests take


def run_ranks(arguments: Iterable[Sequence[object]], *, timeout_s: float, **environment: str) -> None:
    """Run `python *arguments` for every rank at once, in the root of the project, with one thread each.

    The ranks are forks of one process that has imported the policy alone. With a GPU they are not:
    the import counts the devices, after which CUDA does not work in a fork. `arguments` are those of a file,
    or of `-m` and a module.

    Fails with the output of the ranks that failed; none outlives the call.
    """
    if gpu_names():
        run_new_ranks(arguments, timeout_s=timeout_s, **environment)
        return
    ranks_environment = OF_ALL_RANKS | environment
    context = forks()
    with tempfile.TemporaryDirectory() as folder:
        ranks = [
            _started(context, [*map(str, of_rank)], Path(folder, str(rank)), ranks_environment)
            for rank, of_rank in enumerate(arguments)
        ]
        try:
            late = _wait(ranks, timeout_s)
        finally:
            for rank in ranks:
                rank.kill()
                rank.join()
        failed = [rank for rank, process in enumerate(ranks) if process.exitcode != 0]
        outputs = [Path(folder, str(rank)).read_text(errors="replace") for rank in failed]
    assert not late, "\n".join([f"after {timeout_s:g} s ranks {late} had not ended", *outputs])
    assert not failed, "\n".join(outputs)


def run_new_ranks(arguments: Iterable[Sequence[object]], *, timeout_s: float, **environment: str) -> None:
    """As `run_ranks`, each rank in a Python of its own, which imports what it needs in `environment`."""
    ranks = [
        subprocess.Popen(
            [sys.executable, *map(str, of_rank)],
            cwd=ROOT,
            env=os.environ | OF_ALL_RANKS | environment,
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


def forks() -> ForkServerContext:
    """The context whose processes are forks of one that has imported the policy, and has one thread."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, POLICY])
    with mock.patch.dict(os.environ, OF_ALL_RANKS | {"PYTHONPATH": str(ROOT)}):
        forkserver.ensure_running()
    return context


def _started(
    context: ForkServerContext, arguments: list[str], output: Path, environment: Mapping[str, str]
) -> ForkServerProcess:
    output.touch()
    process = context.Process(target=_be_a_rank, args=(arguments, output, dict(environment)))
    process.start()
    return process


def _be_a_rank(arguments: list[str], output: Path, environment: Mapping[str, str]) -> None:
    with output.open("wb", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.chdir(ROOT)
    os.environ.update(environment)
    is_module = arguments[0] == "-m"
    sys.argv = arguments[1:] if is_module else arguments
    sys.path.insert(0, str(ROOT if is_module else Path(arguments[0]).parent))
    if is_module:
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(arguments[0], run_name="__main__")


def _wait(ranks: Sequence[ForkServerProcess], timeout_s: float) -> list[int]:
    """Those that have not ended after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    for rank in ranks:
        rank.join(max(0.0, deadline - time.monotonic()))
    return [number for number, rank in enumerate(ranks) if rank.exitcode is None]
