"""The result file of a check: hardware, versions, command, date and the rows of its parts.

With the standard library alone, so that a machine where nothing can be imported still says so.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PACKED = "packed.json"  # in the folder that `pack` makes
PACKAGES = (
    "torch",
    "triton",
    "numpy",
    "megatron-core",
    "transformer-engine",
    "vllm",
    "ray",
    "transformers",
    "nvidia-nccl-cu13",
    "nvidia-cudnn-cu13",
    "liger-kernel",
)
# Run in a process of its own: CUDA must not be started in the one that starts the parts.
_GPUS = """
import json, torch
names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
print(json.dumps({"names": names, "cuda": torch.version.cuda}))
"""


def find_gpus() -> dict[str, Any]:
    """The GPUs that CUDA finds: {"names", "cuda"}, and "error" where torch cannot be asked."""
    try:
        done = subprocess.run([sys.executable, "-c", _GPUS], capture_output=True, text=True, timeout=120)
    except subprocess.TimeoutExpired:
        return {"names": [], "cuda": None, "error": "torch gave no answer within 120 s"}
    if done.returncode != 0:
        return {"names": [], "cuda": None, "error": (done.stderr.strip().splitlines() or ["?"])[-1]}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def describe(gpus: Mapping[str, Any], *, profile: str, command: str, carry: Path | None) -> dict[str, Any]:
    """All of the result but its rows."""
    return {
        "profile": profile,
        "machine": {
            "cpu": _processor(),
            "num_cores": len(os.sched_getaffinity(0)),
            "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
            "kernel": platform.release(),
            "gpus": list(gpus["names"]),
            "driver": _driver(),
        },
        "versions": versions() | {"cuda": gpus["cuda"]},
        "commit": _commit(carry),
        "command": command,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def versions() -> dict[str, str]:
    """Python's, and those of PACKAGES that are installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def save(path: Path, result: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], *, complete: bool) -> None:
    """Write the result with the rows so far; complete: there will be no more."""
    draft = path.with_suffix(".draft")
    text = json.dumps({**result, "complete": complete, "rows": list(rows)}, indent=2)
    draft.write_text(text + "\n", encoding="utf-8")
    draft.replace(path)


def commit_here() -> str | None:
    """The commit of the working tree, with "+" where it has been changed; None outside of git."""
    try:
        head = _output("git", "rev-parse", "HEAD")
        return head + ("+" if _output("git", "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _commit(carry: Path | None) -> str | None:
    """Of the working tree, or of that where `carry` was packed: a copy may have come without its history."""
    packed = carry / PACKED if carry is not None else None
    if (here := commit_here()) is None and packed is not None and packed.is_file():
        noted = json.loads(packed.read_text(encoding="utf-8"))["commit"]
        return None if noted is None else str(noted)
    return here


def _driver() -> str | None:
    try:
        lines = _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader").splitlines()
    except (OSError, subprocess.SubprocessError):
        return None
    return lines[0] if lines else None


def _output(*command: str) -> str:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=True)
    return done.stdout.strip()


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
