"""What a role finds around it: the interface of its address, and where torch keeps what it compiles."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rlstack.files import compile_privately
from rlstack.orchestration.home import interface_of

FOUND = {
    "lo": ["127.0.0.1", "::1"],
    "eth0": ["10.0.0.7", "fe80::1%eth0", "fd00::7"],
    "docker0": ["172.17.0.1"],
}


@pytest.mark.parametrize(
    ("address", "interface"),
    [
        ("10.0.0.7", "eth0"),
        ("fd00::7", "eth0"),
        ("127.0.0.1", "lo"),
        ("127.0.0.2", "lo"),  # all of 127/8 is this machine
        ("10.0.0.8", None),
    ],
)
def test_the_interface_is_that_of_the_nodes_address(address: str, interface: str | None) -> None:
    assert interface_of(address, FOUND) == interface


@pytest.mark.parametrize(
    ("given", "kept"), [(None, False), ("/tmp/torchinductor_me", False), ("/scratch/compiled", True)]
)
def test_what_torch_compiles_is_kept_where_nobody_else_writes(
    given: str | None, kept: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("TORCHINDUCTOR_CPP_CACHE_PRECOMPILE_HEADERS", "")
    monkeypatch.delenv("TORCHINDUCTOR_CPP_CACHE_PRECOMPILE_HEADERS")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", given or "")
    if given is None:
        monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    compile_privately()
    folder = Path(os.environ["TORCHINDUCTOR_CACHE_DIR"])
    assert (folder == Path(given or "")) is kept
    assert kept or (folder.is_relative_to(tmp_path) and folder.stat().st_mode & 0o077 == 0)
    assert os.environ["TORCHINDUCTOR_CPP_CACHE_PRECOMPILE_HEADERS"] == "0"


def test_every_command_keeps_there_what_torch_compiles(tmp_path: Path) -> None:
    program = (
        "import os, rlstack.cli as cli; "
        "cli.app = lambda: print(os.environ['TORCHINDUCTOR_CACHE_DIR']); cli.main()"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TORCHINDUCTOR")}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment | {"XDG_CACHE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == str(tmp_path / "rlstack" / "torchinductor")
