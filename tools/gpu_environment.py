"""The environment of tools/gpu_static.py: packages for GPUs, and Transformer Engine beside them.

It is beside them because megatron-core would use it if it could import it, and it cannot compute on a CPU.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tarfile
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path

import setup_gpu
from setup import NEEDED, ROOT, Environment, check_imports, create, phase
from setup_gpu import BUILD, ENGINE, EXTENSION, EXTRAS, GPU_LOCK, PYTHON

ENGINE_PYTHON = "transformer-engine"  # the distribution with its Python, and the folder where that is
MADE = ".made"  # the lock that the environment is of
BUILD_TOOLS = ("pybind11", "setuptools>=77", "wheel")


def make(folder: Path, *, newest: bool) -> Path:
    """The Python of the environment `folder`, made anew unless it has the packages of the lock.

    Raises SetupError if it cannot be made.
    """
    setup_gpu.check_machine(python=sys.version_info[:2])
    made, wanted = folder / MADE, GPU_LOCK.read_text(encoding="utf-8")
    if newest or not made.exists() or made.read_text(encoding="utf-8") != wanted:
        environment = create(folder, PYTHON)
        if newest:
            install_newest(environment)
        else:
            setup_gpu.install(environment, ENGINE)
        put_engine_beside(environment, folder, newest=newest)
        check_imports(environment, NEEDED)
        made.write_text("the newest" if newest else wanted, encoding="utf-8")
    return Environment(folder).python


def install_newest(environment: Environment) -> None:
    """The newest releases, as pip resolves them, of what pyproject.toml names; then rlstack itself."""
    with phase("installing the newest releases"):
        if not environment.pip(
            "install", "--upgrade", "--only-binary", ":all:", *names_wanted(), *BUILD_TOOLS
        ):
            raise environment.failure("The newest releases could not be installed.")
    with phase("installing rlstack"):
        if not environment.pip("install", "--no-deps", "--no-build-isolation", "-e", "."):
            raise environment.failure("rlstack could not be installed.")


def names_wanted() -> list[str]:
    """Names of packages for GPUs in pyproject.toml, with extras; Transformer Engine is left out."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    lines = [*project["dependencies"], *(line for extra in EXTRAS for line in extras[extra])]
    names = [re.split(r"[<>=!~ ;]", line, maxsplit=1)[0] for line in lines]
    return [name for name in names if name.partition("[")[0] not in ENGINE]


def put_engine_beside(environment: Environment, folder: Path, *, newest: bool) -> None:
    """Transformer Engine's Python, and the source of its extension, in folders of their names."""
    os.environ.update(BUILD)
    with phase("getting Transformer Engine"), tempfile.TemporaryDirectory() as archives:
        for name, options in {
            ENGINE_PYTHON: ("install", "--upgrade", "--target", str(folder / ENGINE_PYTHON)),
            EXTENSION: ("download", "--no-build-isolation", "--no-binary", ":all:", "--dest", archives),
        }.items():
            got = (
                environment.pip(*options, "--no-deps", name)
                if newest
                else get_locked(environment, name, options)
            )
            if not got:
                raise environment.failure(f"{name} could not be got.")
        unpack(*Path(archives).iterdir(), to=folder / EXTENSION)


def get_locked(environment: Environment, name: str, options: Sequence[str]) -> bool:
    """The one of the lock; False if pip fails."""
    with tempfile.TemporaryDirectory() as folder:
        wanted = setup_gpu.write_lines([name], Path(folder))
        return environment.pip(*options, "--no-deps", "--require-hashes", "-r", str(wanted))


def unpack(archive: Path, *, to: Path) -> None:
    """The content of the one folder in the source archive `archive`."""
    shutil.rmtree(to, ignore_errors=True)
    with tarfile.open(archive) as file, tempfile.TemporaryDirectory(dir=to.parent) as folder:
        file.extractall(folder, filter="data")
        (content,) = Path(folder).iterdir()
        content.rename(to)
