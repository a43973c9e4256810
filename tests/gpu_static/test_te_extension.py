"""Transformer Engine's extension with the headers that its setup.py finds, up to the preprocessor."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.gpu_static.environment import EXTENSION, run

HEADERS = ("cuda_runtime.h", "cudnn.h", "nccl.h", "cublasLt.h")
# What its setup.py hands to the compiler.
DESCRIBE = """
import json, os, sys
from pathlib import Path
sys.path.insert(0, "tools")
from setup_gpu import BUILD
os.environ.update(BUILD)
os.chdir(sys.argv[1])
sys.path.insert(0, sys.argv[1])
from build_tools.pytorch import setup_pytorch_extension
here = Path.cwd()
made = setup_pytorch_extension(here / "csrc", here / "csrc", here / "common_headers")
print(json.dumps([made.sources, made.include_dirs, made.extra_compile_args["cxx"]]))
"""


@pytest.fixture(scope="module")
def extension() -> tuple[list[str], list[str]]:
    """The extension's files, and the compiler's options."""
    text = run("-c", DESCRIBE, EXTENSION).splitlines()[-1]
    sources, folders, options = json.loads(text)
    includes = [f"-I{folder}" for folder in (*folders, sysconfig.get_paths()["include"])]
    return sources, [*options, "-std=c++20", "-DTORCH_EXTENSION_NAME=transformer_engine_torch", *includes]


def test_every_file_finds_its_headers(extension: tuple[list[str], list[str]]) -> None:
    sources, options = extension
    assert len(sources) > 20
    errors = {Path(source).name: preprocessing_error(source, options) for source in sources}
    assert {name: error for name, error in errors.items() if error} == {}


def test_the_headers_of_cuda_are_those_of_the_wheels(extension: tuple[list[str], list[str]]) -> None:
    _, options = extension
    folders = [Path(option[2:]) for option in options if option.startswith("-I")]
    holders = {name: [folder for folder in folders if (folder / name).exists()] for name in HEADERS}
    assert all(found and found[0].is_relative_to(sys.prefix) for found in holders.values()), holders


def preprocessing_error(source: str, options: list[str]) -> str:
    """Preprocess `source`; return the errors of g++, empty if there are none."""
    done = subprocess.run(["g++", *options, "-E", "-o", "/dev/null", source], capture_output=True, text=True)
    return done.stderr[-2000:] if done.returncode else ""
