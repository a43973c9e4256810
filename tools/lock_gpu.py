"""Write requirements-gpu.lock, what `make setup-gpu` installs: .venv/bin/python tools/lock_gpu.py PYTHON

PYTHON is the Python that the lock is for, a 3.12; pip resolves what pyproject.toml wants, and nothing is
installed. A package that requirements.lock has too gets that version, with which the tests pass on the CPU;
the exceptions, which vLLM or torch for GPUs pin differently, are listed at the head of the file.

With --check the lock is compared with what pip resolves under it as constraints: exit code 1, and the
differences, if pyproject.toml needs something that is not in it.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from setup import LOCK, ROOT
from setup_gpu import EXTENSION, EXTRAS, GPU_LOCK, locked

TOOLS = ("cmake", "ninja", "pybind11", "setuptools>=77", "wheel")  # that build the extension, and rlstack
MOST_EXCEPTIONS = 20
HEAD = """\
# What `make setup-gpu` installs, on Linux x86-64 with Python 3.12. tools/lock_gpu.py writes it.
# Of another version than in requirements.lock: {exceptions}.
"""
# As much of torch as the extension's setup.py needs to state its requirements.
TORCH = {
    "torch/__init__.py": """
__version__ = "0"
class version: cuda = "13.0"
class _C: _GLIBCXX_USE_CXX11_ABI = True
""",
    "torch/utils/__init__.py": "",
    "torch/utils/cpp_extension.py": """
from setuptools import Extension as CppExtension
from setuptools.command.build_ext import build_ext as BuildExtension
""",
    "nvidia/__init__.py": "",
}


class File(NamedTuple):
    """A package's one file that is installed."""

    version: str
    sha256: str


def main() -> int:
    """Write the lock, or check it; the exit code."""
    parser = argparse.ArgumentParser(description="Lock the packages for GPUs.")
    parser.add_argument("python", help="a Python 3.12")
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    arguments = parser.parse_args()
    with environment(arguments.python) as python:
        lines = wanted_lines()
        (of_extension,) = (line for line in lines if name_of(line) == EXTENSION)
        extension, needs = look_up_extension(python, of_extension)
        wanted = [line for line in lines if line != of_extension] + needs
        if arguments.check:
            kept = locked(GPU_LOCK)
            found = resolve(python, wanted, {name: version for name, (version, _) in kept.items()})
            return report(differences(found | {EXTENSION: extension}, kept))
        preferred = {name: version for name, (version, _) in locked(LOCK).items()}
        found, exceptions = resolve_near(python, wanted, preferred)
        write(found | {EXTENSION: extension}, exceptions)
    return 0


def wanted_lines() -> list[str]:
    """Requirements of rlstack with EXTRAS, the extension among them, and the tools that build."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    lines = [*project["dependencies"], *TOOLS, *(line for extra in EXTRAS for line in extras[extra])]
    return [line for line in lines if name_of(line) != name_of(project["name"])]


def name_of(line: str) -> str:
    """The name in a requirement, as packages are compared by."""
    return str(canonicalize_name(Requirement(line).name))


@contextmanager
def environment(python: str) -> Iterator[str]:
    """The Python of a new environment of `python` with a current pip and the tools that build."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([python, "-m", "venv", folder], check=True)
        made = str(Path(folder, "bin", "python"))
        tools = [*TOOLS, "packaging"]
        subprocess.run([made, "-m", "pip", "install", "--quiet", "--upgrade", "pip", *tools], check=True)
        yield made


def look_up_extension(python: str, wanted: str) -> tuple[File, list[str]]:
    """The extension's source archive, and what it requires besides torch, which its setup.py computes."""
    with tempfile.TemporaryDirectory() as folder:
        for name, text in TORCH.items():
            Path(folder, name).parent.mkdir(parents=True, exist_ok=True)
            Path(folder, name).write_text(text, encoding="utf-8")
        environment = os.environ | {"PYTHONPATH": folder, "NVTE_BUILD_USE_NVIDIA_WHEELS": "1"}
        options = ["--no-deps", "--no-build-isolation", "--no-binary", EXTENSION]
        done = dry_run(python, [wanted], options, environment)
    if done.report is None:
        raise SystemExit(f"{wanted}: pip found no requirements\n{done.text[-3000:]}")
    (found,) = done.report
    needs = [line for line in found["metadata"]["requires_dist"] if name_of(line) != "torch"]
    return _file(found), needs


def resolve_near(
    python: str, wanted: Sequence[str], preferred: Mapping[str, str]
) -> tuple[dict[str, File], list[str]]:
    """Files for `wanted` at the preferred versions, and the names of those that cannot have theirs."""
    exceptions: list[str] = []
    for _ in range(MOST_EXCEPTIONS):
        kept = {name: version for name, version in preferred.items() if name not in exceptions}
        done = dry_run(python, wanted, ["--only-binary", ":all:"], os.environ, kept)
        if done.report is not None:
            return {
                canonicalize_name(each["metadata"]["name"]): _file(each) for each in done.report
            }, exceptions
        refused = refused_constraints(done.text)
        if not refused:
            raise SystemExit(done.text[-3000:])
        print(f"not at the version of {LOCK.name}: {', '.join(refused)}", flush=True)
        exceptions += refused
    raise SystemExit(f"more than {MOST_EXCEPTIONS} packages cannot have the version of {LOCK.name}")


def resolve(python: str, wanted: Sequence[str], versions: Mapping[str, str]) -> dict[str, File]:
    """Files for `wanted` at `versions`; SystemExit with pip's words if there is no such set."""
    done = dry_run(python, wanted, ["--only-binary", ":all:"], os.environ, versions)
    if done.report is None:
        raise SystemExit(done.text[-3000:])
    return {canonicalize_name(each["metadata"]["name"]): _file(each) for each in done.report}


class DryRun(NamedTuple):
    """An installation that was planned."""

    report: list[dict[str, Any]] | None  # pip's, of each package; None if there is none
    text: str


def dry_run(
    python: str,
    wanted: Sequence[str],
    options: Sequence[str],
    environment: Mapping[str, str],
    versions: Mapping[str, str] | None = None,
) -> DryRun:
    """Have pip plan to install `wanted`, with `versions` as constraints."""
    with tempfile.TemporaryDirectory() as folder:
        report, constraints = Path(folder, "report.json"), Path(folder, "constraints.txt")
        pins = (f"{name}=={version}\n" for name, version in (versions or {}).items())
        constraints.write_text("".join(pins), encoding="utf-8")
        planned = ["--dry-run", "--ignore-installed", "--report", str(report), "-c", str(constraints)]
        done = subprocess.run(
            [python, "-m", "pip", "install", *planned, *options, *wanted],
            env=dict(environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if done.returncode != 0:
            return DryRun(None, done.stdout)
        return DryRun(json.loads(report.read_text(encoding="utf-8"))["install"], done.stdout)


def refused_constraints(text: str) -> list[str]:
    """The constraints that pip names in `text` as in conflict with what a package pins, or as not there."""
    found = re.findall(r"The user requested \(constraint\) ([\w.-]+)==", text)
    found += re.findall(r"No matching distribution found for ([\w.-]+)==", text)
    return sorted({str(canonicalize_name(name)) for name in found})


def differences(found: Mapping[str, File], kept: Mapping[str, tuple[str, str]]) -> list[str]:
    """Lines about packages that are missing in the lock, there for nothing, or another file."""
    lines = [f"{name}=={file.version} is not in it" for name, file in found.items() if name not in kept]
    lines += [f"{name} is not needed" for name in kept if name not in found]
    both = ((name, found[name], File(*kept[name])) for name in found if name in kept)
    lines += [f"{name}: {now}, and in it {then}" for name, now, then in both if now != then]
    return lines


def report(lines: Sequence[str]) -> int:
    """Print `lines` about the lock; 1 if there are any."""
    print(*lines, f"{GPU_LOCK.name}: {'differs' if lines else 'is what pip resolves'}", sep="\n")
    return int(bool(lines))


def write(found: Mapping[str, File], exceptions: Sequence[str]) -> None:
    """Write GPU_LOCK."""
    head = HEAD.format(exceptions=", ".join(sorted(exceptions)) or "none")
    lines = (
        f"{name}=={version} --hash=sha256:{sha256}\n" for name, (version, sha256) in sorted(found.items())
    )
    GPU_LOCK.write_text(head + "".join(lines), encoding="utf-8")


def _file(found: Mapping[str, Any]) -> File:
    sha256: str = found["download_info"]["archive_info"]["hashes"]["sha256"]
    return File(found["metadata"]["version"], sha256)


if __name__ == "__main__":
    sys.exit(main())
