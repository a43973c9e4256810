"""Put the packages that the bare profile needs beside torch into a folder that can be carried."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from gpu_check.record import PACKED, ROOT, commit_here

# All but torch, Triton and NumPy, without what only engines, Ray or megatron-core need.
PACKAGES = (
    "antlr4-python3-runtime",
    "attrs",
    "execnet",
    "hypothesis",
    "iniconfig",
    "markdown-it-py",
    "mdurl",
    "nvidia-ml-py",
    "omegaconf",
    "packaging",
    "pluggy",
    "psutil",
    "pygments",
    "pytest",
    "pytest-xdist",
    "PyYAML",
    "rich",
    "safetensors",
    "sortedcontainers",
)
MAX_MIB = 64  # with the working tree beside it
GLIBC = ("2_28", "2_17", "2_12", "2_5")


def pack(folder: Path, *, python: str) -> float:
    """Fill `folder`, which is replaced, with PACKAGES for that Python on x86-64; returns its size in MiB.

    The versions are those that are installed here, with which the tests pass. Exits with a message if pip
    fails or the folder becomes too large.
    """
    if folder.exists() and not (folder / PACKED).is_file():
        sys.exit(f"error: --to {folder}: is there, and was not made by pack; remove it, or give another")
    shutil.rmtree(folder, ignore_errors=True)
    pins = [f"{name}=={metadata.version(name)}" for name in PACKAGES]
    done = subprocess.run([sys.executable, *_pip(folder, python), *pins], check=False)
    if done.returncode != 0:
        sys.exit("error: pip could not get the packages; its words are above")
    mib = size_mib(folder)
    if mib > MAX_MIB:
        sys.exit(f"error: {folder} has {mib:.0f} MiB; at most {MAX_MIB} can be carried")
    noted = {"commit": commit_here(), "python": python, "packages": pins}
    (folder / PACKED).write_text(json.dumps(noted, indent=2) + "\n", encoding="utf-8")
    return mib


def size_mib(folder: Path) -> float:
    """MiB of all files in `folder`."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 2**20


def tree_mib() -> float:
    """MiB of the files that git has here."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    paths = [ROOT / name for name in listed.decode().split("\0") if name]
    return sum(path.stat().st_size for path in paths if path.is_file()) / 2**20


def _pip(folder: Path, python: str) -> list[str]:
    platforms = [f"manylinux_{version}_x86_64" for version in GLIBC] + ["manylinux2014_x86_64"]
    return [
        *("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-compile"),
        *("--only-binary=:all:", "--implementation", "cp", "--python-version", python),
        *(argument for platform in platforms for argument in ("--platform", platform)),
        *("--target", str(folder)),
    ]
