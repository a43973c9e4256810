import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

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
    assert "torch could not be installed. If pip found no CPU build" in str(error.value)
    assert lines[-1] == f"The whole log is {tmp_path / 'setup.log'}"
