"""The command: pack what a bare machine needs, and run the checks there."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gpu_check.pack import pack, tree_mib
from gpu_check.parts import FAILED, NOT_RUN, TIMED_OUT
from gpu_check.profiles import LIMIT_S, PROFILES
from gpu_check.record import ROOT, describe, find_gpus, save
from gpu_check.runner import run_parts
from gpu_check.shown import text_of

CARRY = ROOT / "build" / "gpu_check" / "carry"
DRY_OUT = ROOT / "build" / "gpu_check" / "dry"
RESULTS = ROOT / "benchmarks" / "results"
DRY_PATIENCE = 4  # the limits are for GPUs: times this many on two cores


def main() -> None:
    given = parse(sys.argv[1:])
    if given.command == "pack":
        mib = pack(given.to, python=given.python)
        print(
            f"{given.to}: {mib:.1f} MiB, for Python {given.python}; the working tree has {tree_mib():.1f} MiB"
        )
        return
    sys.exit(check(given))


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python tools/gpu_check", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    packing = commands.add_parser("pack", help="here, with a network: get the packages for a bare machine")
    packing.add_argument("--to", type=Path, default=CARRY, help="the folder to make")
    packing.add_argument("--python", default="3.12", help="the version of Python on that machine")
    running = commands.add_parser("run", help="on the machine with GPUs, without a network")
    running.add_argument("--profile", choices=sorted(PROFILES), default="bare")
    running.add_argument("--out", type=Path, help="folder of the results; otherwise benchmarks/results")
    running.add_argument("--carry", type=Path, default=CARRY, help="the folder that pack has made, if needed")
    running.add_argument("--limit-s", type=float, help="for all parts together")
    running.add_argument("--only", nargs="+", metavar="PART", help="these parts alone")
    running.add_argument("--dry-run", action="store_true", help="on the CPU, what can run there")
    return parser.parse_args(arguments)


def check(given: argparse.Namespace) -> int:
    """Run the parts, save after each, print the table. Returns 1 if one has not passed, else 0."""
    patience, started = DRY_PATIENCE if given.dry_run else 1, time.monotonic()
    deadline = started + (given.limit_s or patience * LIMIT_S[given.profile])
    out: Path = (given.out or (DRY_OUT if given.dry_run else RESULTS)).resolve()
    out.mkdir(parents=True, exist_ok=True)
    parts = [part for part in PROFILES[given.profile]() if not given.only or part.name in given.only]
    if unknown := set(given.only or ()) - {part.name for part in parts}:
        sys.exit(f"error: --only {' '.join(sorted(unknown))}: no part of {given.profile}")
    command = shlex.join(["python", "tools/gpu_check", *sys.argv[1:]])
    gpus = find_gpus()
    if "error" in gpus:
        say(f"torch finds no GPU: {gpus['error']}")
    result: dict[str, Any] = {"dry_run": given.dry_run, **described(given, gpus, command)}
    log = out / f"gpu_{given.profile}.log"
    log.write_text("", encoding="utf-8")
    rows: list[dict[str, Any]] = []
    for row in run_parts(
        parts,
        out=out,
        log=log,
        environment=environment(given.carry),
        num_gpus=len(gpus["names"]),
        dry_run=given.dry_run,
        deadline=deadline,
        patience=patience,
        say=say,
    ):
        rows.append(row)
        result["seconds"] = round(time.monotonic() - started, 1)
        save(out / f"gpu_{given.profile}.json", result, rows, complete=len(rows) == len(parts))
    print(f"\n{text_of(result, rows)}\n{out}/gpu_{given.profile}.json")
    if out == RESULTS:
        print("commit it, and what python tools/support_table.py makes of it")
    return int(any(row["outcome"] in (FAILED, TIMED_OUT, NOT_RUN) for row in rows))


def described(given: argparse.Namespace, gpus: dict[str, Any], command: str) -> dict[str, Any]:
    """Where, with what and when it ran; the versions are those that the parts will find."""
    sys.path[:0] = [str(given.carry)] if given.carry.is_dir() else []
    return describe(gpus, profile=given.profile, command=command, carry=given.carry)


def environment(carry: Path) -> dict[str, str]:
    """Variables of the parts: what was carried comes first, then the project."""
    carried = [str(carry.resolve())] if carry.is_dir() else []
    paths = [*carried, str(ROOT), str(ROOT / "kernels"), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}


def say(text: str) -> None:
    """One line, at once."""
    print(text, flush=True)
