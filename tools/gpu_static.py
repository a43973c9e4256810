"""Test the packages for GPUs on a machine without one: python3.12 tools/gpu_static.py FOLDER [--out FILE]

Makes the environment FOLDER from requirements-gpu.lock, with Transformer Engine's Python and the source of
its extension beside the packages, and tries in it what needs no GPU: PARTS. Prints a table; exit code 1 if a
part fails. --out: where the table goes as JSON, with the versions, and the time and disk that it took.

With --newest the environment has the newest releases of what pyproject.toml names, whatever it pins there:
the table has what of rlstack they break. Standard library only.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from gpu_environment import make
from setup import ROOT, SetupError

STATIC = "tests/gpu_static"
PYTEST = ("-m", "pytest", "-q", "-rfE", "--tb=short", "-p", "no:cacheprovider")
LOCK = "the lock"
PARTS = {
    LOCK: ("tools/lock_gpu.py", sys.executable, "--check"),
    "the policy on the CPU": (
        *PYTEST,
        "tests/unit/test_cpu_adaptor.py",
        "tests/distributed/test_policy.py",
        "tests/distributed/test_weight_source.py",
        "tests/distributed/test_checkpoint.py",
    ),
    "Transformer Engine's modules": (*PYTEST, f"{STATIC}/test_te_layers.py"),
    "Transformer Engine's extension": (*PYTEST, f"{STATIC}/test_te_extension.py"),
    "vLLM": (*PYTEST, f"{STATIC}/test_vllm.py"),
    "the head": (*PYTEST, f"{STATIC}/test_head.py"),
    "the Triton kernels": (*PYTEST, "tests/kernels/test_triton_compiled.py"),
}
"""Arguments of the environment's Python in the root of the project, by the name of the part."""

SHOWN = (
    "torch",
    "triton",
    "vllm",
    "megatron-core",
    "transformer-engine",
    "ray",
    "transformers",
    "numpy",
    "nvidia-cudnn-cu13",
    "nvidia-nccl-cu13",
)
COUNTS = re.compile(r"(\d+) (passed|failed|skipped|error)")


class Outcome(NamedTuple):
    """Of a part."""

    part: str
    command: str
    passed: bool
    seconds: float
    counts: dict[str, int]  # of tests, by pytest's words; {} without pytest
    breaks: list[str]  # the lines that name what failed


def main() -> int:
    """Make the environment, try the parts, print and write the table; the exit code."""
    parser = argparse.ArgumentParser(description="Test the packages for GPUs without a GPU.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, help="where the table goes as JSON")
    parser.add_argument("--newest", action="store_true", help="the newest releases, not those of the lock")
    parser.add_argument(
        "--part", action="append", choices=PARTS, help="only this; the rows of others are kept"
    )
    options = parser.parse_args()
    folder: Path = options.folder.absolute()
    started = time.perf_counter()
    try:
        python = make(folder, newest=options.newest)
    except SetupError as error:
        print(error, file=sys.stderr)
        return 1
    setup_s = time.perf_counter() - started
    versions = versions_of(python)
    print(*(f"  {name} {version}" for name, version in versions.items()), sep="\n")
    wanted = options.part or [name for name in PARTS if not (options.newest and name == LOCK)]
    outcomes = [try_part(python, name) for name in wanted]
    if options.out is not None:
        write(options.out, outcomes, versions, setup_s=setup_s, gigabytes=size_of(folder) / 1e9)
    return int(not all(outcome.passed for outcome in outcomes))


def try_part(python: Path, name: str) -> Outcome:
    """Run a part, print its row, and what it breaks."""
    started = time.perf_counter()
    done = subprocess.run(
        [python, *PARTS[name]],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "kernels")])},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    lines = done.stdout.splitlines() or [""]
    outcome = Outcome(
        part=name,
        command=" ".join(["python", *PARTS[name]]).replace(sys.executable, "python3.12"),
        passed=done.returncode == 0,
        seconds=round(time.perf_counter() - started, 1),
        counts={word: int(number) for number, word in COUNTS.findall(lines[-1])},
        breaks=[] if done.returncode == 0 else breaks_in(lines),
    )
    verdict = "passed" if outcome.passed else "FAILED"
    print(f"{name:32}{verdict:8}{outcome.seconds:5.0f} s  {lines[-1]}", flush=True)
    for line in outcome.breaks:
        print(f"  {line}")
    return outcome


def breaks_in(lines: Sequence[str]) -> list[str]:
    """The lines of pytest's summary that name what failed; without a summary the last ones."""
    return [line for line in lines if line.startswith(("FAILED ", "ERROR "))] or list(lines[-15:])


def versions_of(python: Path) -> dict[str, str]:
    """Of SHOWN, as far as they are installed, or are beside what is."""
    code = f"""
import json, sys
from importlib import metadata
sys.path.append(sys.prefix + "/transformer-engine")
there = {{name: next(iter(metadata.distributions(name=name)), None) for name in {SHOWN!r}}}
print(json.dumps({{name: found.version for name, found in there.items() if found}}))
"""
    found: dict[str, str] = json.loads(subprocess.check_output([python, "-c", code], text=True))
    return found


def size_of(folder: Path) -> int:
    """Bytes of all files in `folder`."""
    return sum(path.lstat().st_size for path in folder.rglob("*"))


def write(
    path: Path, outcomes: Sequence[Outcome], versions: dict[str, str], *, setup_s: float, gigabytes: float
) -> None:
    """Write what was found as JSON, beside the parts of the same versions that are there.

    `setup_s`: what making the environment took in this call, or finding that it is there.
    """
    kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    rows = {row["part"]: row for row in kept.get("parts", []) if kept["versions"] == versions}
    rows |= {outcome.part: outcome._asdict() for outcome in outcomes}
    found = {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "command": "make test-gpu-static",
        "machine": {"cores": os.cpu_count(), "gpus": 0, "python": platform.python_version()},
        "versions": versions,
        "setup_s": max(round(setup_s), kept.get("setup_s", 0)),
        "environment_gb": round(gigabytes, 1),
        "parts": [rows[name] for name in PARTS if name in rows],
    }
    path.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
