"""Packages that hide another, folders too long for sockets, threads that a launcher has asked for."""

from __future__ import annotations

import importlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rlstack.config import surroundings
from rlstack.config.schema import Cluster, RunConfig
from rlstack.config.threads import BINDINGS, compute_on_one_thread


def package(folder: Path, *names: str) -> Path:
    """A package `names` in `folder`, of which only the last has an __init__.py."""
    inner = folder.joinpath(*names)
    inner.mkdir(parents=True)
    (inner / "__init__.py").write_text("__version__ = '0.0'\n")
    importlib.invalidate_caches()
    return inner / "__init__.py"


@pytest.mark.parametrize("names", [("megatron", "core"), ("vllm",), ("megatron",), ("torch",)])
@pytest.mark.parametrize("place", ["cwd", "PYTHONPATH"])
def test_a_package_in_front_of_the_installed_one_is_found(
    names: tuple[str, ...], place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "other"))
    assert list(surroundings.surroundings_problems(RunConfig())) == []
    file = package(tmp_path if place == "cwd" else tmp_path / "other", *names)
    (found,) = surroundings.surroundings_problems(RunConfig())
    module = {"megatron": "megatron.core"}.get(names[0], names[0])
    assert found.startswith(
        f"`import {module}` finds {file}, which is not the package of that name; rename it"
    )


def test_folders_that_python_does_not_take_for_a_package_hide_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("vllm", "torch", "megatron/training", "megatron/core"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert list(surroundings.shadows()) == []


def test_a_checkout_that_is_the_installed_one_hides_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package(tmp_path, "vllm")
    monkeypatch.chdir(tmp_path)
    assert list(surroundings.shadows())

    class Editable:
        def read_text(self, name: str) -> str:
            assert name == "direct_url.json"
            return f'{{"url": "{tmp_path.as_uri()}", "dir_info": {{"editable": true}}}}'

    monkeypatch.setattr(surroundings, "_distribution", lambda module: Editable())
    assert list(surroundings.shadows()) == []


@pytest.mark.skipif(importlib.util.find_spec("megatron") is None, reason="megatron-core is not installed")
def test_a_role_finds_that_it_would_import_another_package(tmp_path: Path) -> None:
    """A copy of the installed one too: the versions are equal, the files need not be."""
    code = (
        "from rlstack.orchestration.role_host import refuse_foreign_modules as look\n"
        "try:\n    look()\nexcept Exception as error:\n    print(type(error).__name__, error)"
    )

    def said(path: str) -> str:
        variables = os.environ | {"PYTHONPATH": path}
        command = [sys.executable, "-c", code]
        return subprocess.run(command, capture_output=True, text=True, env=variables, cwd=tmp_path).stdout

    assert said("") == ""
    file = package(tmp_path / "copy", "megatron", "core")
    assert said(str(tmp_path / "copy")).startswith(
        f"ConfigError `import megatron.core` finds {file}, which is not"
    )


def test_a_temporary_folder_that_is_too_long_for_rays_sockets_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", "/tmp/" + "x" * 75)
    (found,) = surroundings.surroundings_problems(RunConfig())
    assert "bytes too long for the sockets" in found and "; export RAY_TMPDIR=/tmp" in found
    assert list(surroundings.surroundings_problems(RunConfig(cluster=Cluster(address="auto")))) == []
    monkeypatch.setenv("RAY_TMPDIR", "/tmp")
    assert list(surroundings.surroundings_problems(RunConfig())) == []


def test_a_role_on_the_cpu_computes_on_one_thread_whatever_a_launcher_says() -> None:
    variables = {"OMP_NUM_THREADS": "4", "MKL_NUM_THREADS": "8", "HOME": "/"} | dict.fromkeys(BINDINGS, "0")
    compute_on_one_thread(variables)
    assert variables == {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "HOME": "/"}


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
def test_a_command_is_not_bound_to_one_core_by_a_launcher() -> None:
    code = (
        "import os, sys\n"
        "from contextlib import suppress\n"
        "from rlstack.cli import main\n"
        "sys.argv[1:] = ['--version']\n"
        "with suppress(SystemExit):\n"
        "    main()\n"
        "import torch\n"
        "print(len(os.sched_getaffinity(0)))\n"
    )
    environment = os.environ | {"OMP_NUM_THREADS": "4", "OMP_PROC_BIND": "true"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.stdout.split()[-1] == str(len(os.sched_getaffinity(0))), done.stderr


def test_torch_is_not_there_yet_when_a_role_settles() -> None:
    """It reads the number of threads when it is imported."""
    imports = (
        "import rlstack.orchestration.roles, rlstack.orchestration.engine_group, "
        "rlstack.orchestration.policy_group, rlstack.orchestration.reward_group"
    )
    code = f"{imports}, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_torch_has_one_thread_wherever_it_computes_after_that() -> None:
    """Ray calls an engine from another thread than the one in which it was made."""
    code = (
        "import os, threading\n"
        "from rlstack.config.threads import compute_on_one_thread\n"
        "compute_on_one_thread(os.environ)\n"
        "import torch\n"
        "found = []\n"
        "thread = threading.Thread(target=lambda: found.append(torch.get_num_threads()))\n"
        "thread.start(); thread.join()\n"
        "print(*found, torch.get_num_threads())"
    )
    variables = os.environ | {"OMP_NUM_THREADS": "4", "MKL_NUM_THREADS": "4"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=variables)
    assert done.stdout.split() == ["1", "1"]
