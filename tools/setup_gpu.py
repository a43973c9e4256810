"""Make a virtual environment in which GPU engines run: python3.12 tools/setup_gpu.py .venv-gpu

Standard library only, since nothing is installed yet. The packages are those of requirements-gpu.lock, which
tools/lock_gpu.py writes: no other version is taken, and no file with another hash. All of them are wheels but
Transformer Engine's extension for torch, which is compiled with the headers that the wheels of CUDA, cuDNN
and NCCL bring. At the end the imports that a run needs are tried.

With --without-engine Transformer Engine is left out: the policy computes on the CPU then, as it does where no
package is for GPUs. That is how these packages are tested on machines without a GPU.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path

from setup import (
    NEEDED,
    ROOT,
    Environment,
    SetupError,
    check_imports,
    check_platform,
    create,
    phase,
    print_versions,
)

GPU_LOCK = ROOT / "requirements-gpu.lock"
PYTHON = (3, 12)
EXTRAS = ("gpu", "liger", "dev", "report", "tensorboard", "wandb", "mlflow")
EXTENSION = "transformer-engine-torch"
ENGINE = ("transformer-engine", "transformer-engine-cu13", EXTENSION)
ENGINE_NEEDED = ("import transformer_engine.pytorch",)
SHOWN = ("torch", "triton", "vllm", "megatron-core", "ray", "transformers")
BUILD = {
    # The headers of the locked wheels, whatever the machine has.
    "NVTE_BUILD_USE_NVIDIA_WHEELS": "1",
    # Otherwise its setup.py looks for a compiled one elsewhere, of which the lock has no hash.
    "NVTE_PYTORCH_FORCE_BUILD": "TRUE",
}
LINE = re.compile(r"(?P<name>[a-z0-9-]+)==(?P<version>\S+) --hash=sha256:(?P<sha256>[0-9a-f]{64})")


def main(arguments: Sequence[str]) -> int:
    """Set up the environment that `arguments` name; 0 if everything in it imports, 1 otherwise."""
    parser = argparse.ArgumentParser(description="Make an environment with the packages for GPUs.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--without-engine", action="store_true", help="leave Transformer Engine out")
    options = parser.parse_args(arguments)
    left_out = ENGINE if options.without_engine else ()
    try:
        check_machine(python=sys.version_info[:2])
        environment = create(options.folder.absolute(), PYTHON)
        install(environment, left_out)
        check_imports(environment, [*NEEDED, *(() if left_out else ENGINE_NEEDED)])
        print_versions(environment, [*SHOWN, *(name for name in ENGINE if name not in left_out)])
    except SetupError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def check_machine(*, python: tuple[int, int]) -> None:
    """Raise SetupError for what pip cannot install."""
    if python != PYTHON:
        version = ".".join(map(str, python))
        raise SetupError(
            f"{sys.executable} is Python {version}; {GPU_LOCK.name} is for 3.12: "
            "make setup-gpu GPU_PYTHON=PATH/python3.12"
        )
    check_platform(GPU_LOCK)


def install(environment: Environment, left_out: Collection[str] = ()) -> None:
    """Install what is locked but `left_out`, then rlstack itself; nothing brings anything else along."""
    wheels = [name for name in locked(GPU_LOCK) if name != EXTENSION and name not in left_out]
    with phase(f"installing vLLM, megatron-core, torch for GPUs and the rest, {len(wheels)} packages"):
        if not _install_locked(environment, wheels, "--only-binary", ":all:"):
            raise environment.failure(f"The packages of {GPU_LOCK.name} could not be installed.")
    if EXTENSION not in left_out:
        os.environ.update(BUILD)
        with phase("compiling Transformer Engine's extension"):
            if not _install_locked(environment, [EXTENSION], "--no-build-isolation"):
                raise environment.failure("Transformer Engine's extension could not be built.")
    with phase("installing rlstack"):
        if not environment.pip("install", "--no-deps", "--no-build-isolation", "-e", "."):
            raise environment.failure("rlstack could not be installed.")


def locked(path: Path) -> dict[str, tuple[str, str]]:
    """Version and SHA-256 of each package in the lock `path`, by name; ValueError for another line."""
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            continue
        if (match := LINE.fullmatch(line)) is None:
            raise ValueError(f"{path.name}: {line!r} is no package with a version and a hash")
        found[match["name"]] = (match["version"], match["sha256"])
    return found


def write_lines(names: Sequence[str], folder: Path) -> Path:
    """A file in `folder` with the lock's lines of `names`."""
    files = locked(GPU_LOCK)
    path = folder / "wanted.txt"
    lines = (f"{name}=={files[name][0]} --hash=sha256:{files[name][1]}\n" for name in names)
    path.write_text("".join(lines), encoding="utf-8")
    return path


def _install_locked(environment: Environment, names: Sequence[str], *options: str) -> bool:
    """Those of the lock; False if pip fails."""
    with tempfile.TemporaryDirectory() as folder:
        wanted = write_lines(names, Path(folder))
        return environment.pip("install", "--no-deps", "--require-hashes", *options, "-r", str(wanted))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
