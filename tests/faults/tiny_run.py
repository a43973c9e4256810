"""The run that the faults happen to: the quickstart's task, cut down until a run takes half a minute."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from rlstack.config.load import load_config
from rlstack.orchestration.schedule import Schedule
from rlstack.telemetry.curves import read_rows
from tests.faults.faults import Action, Fault, Role
from tests.faults.invariants import Left
from tests.faults.strike import FAULT, FOLDER, MARKER, as_text

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "configs" / "quickstart.yaml"
NAME = "test"
SETTINGS = (
    f"run.name={NAME}",
    "schedule.num_steps=8",
    "schedule.sync_interval=4",
    "schedule.save_every=3",
    "schedule.evaluate_every=4",
    "batch.prompts_per_step=4",
    "rollout.n=4",
    "rollout.max_new_tokens=48",
    "rollout.max_num_seqs=16",  # one step's: engines are still sampling while the policy trains
    "rollout.generate_timeout_s=15",
    "policy.step_timeout_s=15",
    "transfer.timeout_s=15",
    "checkpoint.timeout_s=15",
    "reward.timeout_s=2",
    "evaluation.num_prompts=4",
    "evaluation.n=2",
)
LIMIT_S = 180.0  # of each start of the driver
ENDING_S = 30.0  # for the processes of a driver that was killed to notice
STALL_S = 3.0  # after which a stalled driver is killed, as whoever started it would in the end
POLL_S = 0.1


def schedule() -> Schedule:
    return Schedule.of(load_config(CONFIG, SETTINGS).schedule)


def run_with(fault: Fault | None, folder: Path, settings: Sequence[str] = ()) -> Left:
    """Run with `fault` below `folder`, which is new; if the driver is lost, take the run up again.

    settings: put over those of all runs.
    """
    folder.mkdir(parents=True)
    started = time.monotonic()
    status = _drive(fault, folder, settings)
    if fault is not None and fault.role is Role.driver and status == -signal.SIGKILL:
        status = _drive(fault, folder, [*settings, "--resume"])
    ended_s = time.monotonic() - started
    remaining = _remaining(folder)
    _end(remaining)
    return read_left(
        folder / NAME,
        processes=[_described(process) for process in remaining],
        struck=(folder / MARKER).exists(),
        ended_s=None if status is None else ended_s,
    )


def read_left(folder: Path, **seen: Any) -> Left:
    """What the run in `folder` has left in files; `seen` is the rest of it."""
    return Left(
        summary=_read_json(folder / "summary.json"),
        steps=_rows(folder / "metrics.jsonl"),
        rollouts=_rows(folder / "rollouts.jsonl"),
        restarts=_rows(folder / "restarts.jsonl"),
        weights={p.name: _digest(p) for p in sorted((folder / "model").glob("*.safetensors"))},
        checkpoints=sorted(p.name for p in (folder / "checkpoints").glob("*")),
        **seen,
    )


def _drive(fault: Fault | None, folder: Path, arguments: Sequence[str]) -> int | None:
    """The driver's exit status; None: it had to be ended at the limit."""
    command = [sys.executable, "-m", "tests.faults.driver", "train", CONFIG, *SETTINGS, *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT), FOLDER: str(folder), FAULT: as_text(fault)}
    with (folder / "output.txt").open("a", encoding="utf-8") as output:
        driver = subprocess.Popen(
            [*command, f"run.dir={folder}"],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            return _wait(driver, is_stalled=_stalls_driver(fault, folder))
        finally:
            driver.kill()
            driver.wait()


def _stalls_driver(fault: Fault | None, folder: Path) -> Iterator[bool]:
    """Whether the driver has just been stalled."""
    is_possible = fault is not None and (fault.role, fault.action) == (Role.driver, Action.stall)
    was_there = (folder / MARKER).exists()
    while True:
        yield is_possible and not was_there and (folder / MARKER).exists()


def _wait(driver: subprocess.Popen[bytes], *, is_stalled: Iterator[bool]) -> int | None:
    end = time.monotonic() + LIMIT_S
    while time.monotonic() < end:
        with suppress(subprocess.TimeoutExpired):
            return driver.wait(POLL_S)
        if next(is_stalled):
            time.sleep(STALL_S)
            driver.kill()
    return None


def _remaining(folder: Path) -> list[psutil.Process]:
    """The processes of the run that have not ended within ENDING_S, wherever they hang in the tree."""
    end = time.monotonic() + ENDING_S
    while (found := [p for p in psutil.process_iter() if _belongs(p, folder)]) and time.monotonic() < end:
        time.sleep(1.0)
    return found


def _belongs(process: psutil.Process, folder: Path) -> bool:
    try:
        return process.environ().get(FOLDER) == str(folder) and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _described(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        return f"{process.name()} ({process.status()})"
    return "one that has ended meanwhile"


def _end(processes: list[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, timeout=10.0)


def _rows(path: Path) -> list[Mapping[str, Any]]:
    return list(read_rows(path)) if path.exists() else []


def _read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
