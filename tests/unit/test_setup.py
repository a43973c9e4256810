import importlib.util
import re
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from rlstack.doctor.checks.requirements import brought
from rlstack.doctor.probes import packages

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def setup() -> ModuleType:
    spec = importlib.util.spec_from_file_location("setup_tool", ROOT / "tools" / "setup.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_needs_nothing_but_the_standard_library(setup: ModuleType) -> None:
    packages = {getattr(value, "__module__", "") or "" for value in vars(setup).values()}
    roots = {name.split(".")[0] for name in packages} - {"setup_tool", ""}
    assert roots <= sys.stdlib_module_names


def test_torch_is_pinned_to_one_version(setup: ModuleType) -> None:
    name, _, version = setup.pinned_torch().partition("==")
    assert name == "torch"
    assert version.replace(".", "").isdecimal()


LINE = re.compile(r"([a-z0-9-]+)==(\S+) --hash=sha256:[0-9a-f]{64}")


def test_the_lock_has_a_version_and_a_hash_of_all_that_is_needed(setup: ModuleType) -> None:
    lines = [line for line in setup.LOCK.read_text().splitlines() if not line.startswith("#")]
    locked = {match[1]: match[2] for line in lines if (match := LINE.fullmatch(line))}
    assert len(locked) == len(lines)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = {"cpu", "dev", "report", "tensorboard", "wandb", "mlflow"}
    direct = [*project["dependencies"]]
    direct += [text for extra in extras for text in project["optional-dependencies"][extra]]
    for need in map(Requirement, direct):
        if need.name != "torch":
            assert need.specifier.contains(locked[canonicalize_name(need.name)]), need
    needed = {need.name for need in brought(packages.look().installed, setup.EXTRAS)}
    assert needed - {"torch", "rlstack-megatron", *setup.COMPANIONS} <= locked.keys()


@pytest.mark.parametrize(
    ("name", "without", "first"),
    [
        ("ray", "2.58.0", "2.59.0"),  # that asks for a token by default
        ("vllm", "0.27.0", "0.28.0"),  # whose workers meet at a file, not at a port of every interface
    ],
)
def test_versions_that_do_not_keep_a_promise_are_not_accepted(name: str, without: str, first: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needs = [*project["dependencies"], *project["optional-dependencies"]["gpu"]]
    (need,) = [need for need in map(Requirement, needs) if need.name == name]
    assert not need.specifier.contains(without)
    lock = (ROOT / "requirements-gpu.lock").read_text()
    (locked,) = re.findall(rf"^{name}==(\S+)", lock, re.MULTILINE)
    assert need.specifier.contains(locked) and Version(locked) >= Version(first)


def test_nothing_is_installed_that_is_not_locked_but_torch(
    setup: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[tuple[str, ...]] = []
    environment = setup.Environment(tmp_path)
    monkeypatch.setattr(environment, "pip", lambda *arguments: asked.append(arguments) or True)
    setup.install(environment)
    assert all("--no-deps" in arguments for arguments in asked)
    locked, torch, _ = asked
    assert "--require-hashes" in locked and str(setup.LOCK) in locked
    assert torch[-1] == f"{setup.pinned_torch()}+cpu"


def test_a_machine_without_wheels_is_refused_clearly(
    setup: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    with pytest.raises(setup.SetupError, match=r"requirements\.lock has the packages for x86-64, and this"):
        setup.check_machine(python=(3, 11))


def test_another_python_is_refused_clearly(setup: ModuleType) -> None:
    with pytest.raises(setup.SetupError, match=r"is Python 3\.12; the pinned engines need 3\.11"):
        setup.check_machine(python=(3, 12))


def test_a_machine_without_a_compiler_is_refused(
    setup: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(setup.SetupError, match="there is no C compiler"):
        setup.check_machine(python=(3, 11))


def test_a_failure_shows_the_end_of_the_log_and_where_it_is(setup: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").write_text("#!/bin/sh\nseq 30\nexit 1\n")
    (tmp_path / "bin" / "python").chmod(0o755)
    environment = setup.Environment(tmp_path)
    with pytest.raises(setup.SetupError) as error:
        setup.install(environment)
    lines = str(error.value).splitlines()
    assert lines[: setup.TAIL_LINES] == [str(number) for number in range(16, 31)]
    assert "The packages of requirements.lock could not be installed." in str(error.value)
    assert lines[-1] == f"The whole log is {tmp_path / 'setup.log'}"
