"""A cluster that is not there is said so at once."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from ray._private import worker

from rlstack.config.schema import Cluster
from rlstack.errors import ConfigError
from rlstack.orchestration.loopback import LOOPBACK
from rlstack.orchestration.ray_session import end_ray, start_ray, text_to, with_descendants
from tests.e2e.nodes import ENVIRONMENT, ray_nodes


@pytest.mark.parametrize("address", ["127.0.0.1:9", "nonsense", "127.0.0.1:x"])
def test_an_address_where_no_cluster_is_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match=f"cluster.address = {address}: the address of a"):
        start_ray(Cluster(address=address))


def test_what_ray_says_goes_to_a_file(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def say(line: str) -> None:
        worker.print_to_stdstream({"lines": [line], "pid": "raylet", "is_err": False}, ignore_prefix=False)

    with text_to(tmp_path / "logs" / "ray.log"):
        say("A worker died: OOM, SIGSEGV")
        say("or another reason")
    assert capfd.readouterr().out == ""
    assert (tmp_path / "logs" / "ray.log").read_text() == "A worker died: OOM, SIGSEGV\nor another reason\n"
    say("said to whoever uses Ray besides")
    assert "besides" in capfd.readouterr().out


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where runs make their temporary folders; short, for the paths of sockets have a limit."""
    folder = Path(tempfile.mkdtemp(prefix="s"))
    monkeypatch.setenv("RAY_TMPDIR", str(folder))
    yield folder
    shutil.rmtree(folder)


@pytest.mark.slow
def test_a_run_starts_its_own_ray_whatever_the_environment_says(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "known to everybody")
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    before = dict(os.environ)
    processes = start_ray(Cluster())
    try:
        assert ray.util.get_node_ip_address() == LOOPBACK
        (folder,) = place.iterdir()
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        for process in processes:
            variables = process.environ()
            assert (variables["RAY_AUTH_MODE"], variables["TMPDIR"]) == ("token", str(folder))
            assert Path(variables["RAY_AUTH_TOKEN_PATH"]).parent == folder
            assert "RAY_AUTH_TOKEN" not in variables
    finally:
        end_ray(with_descendants(processes))
    assert list(place.iterdir()) == []
    assert {name: value for name, value in os.environ.items() if name.startswith(("RAY_AUTH", "TMPDIR"))} == {
        name: value for name, value in before.items() if name.startswith(("RAY_AUTH", "TMPDIR"))
    }


def test_a_ray_that_does_not_start_leaves_its_words_and_no_folder(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*, _temp_dir: str, **settings: object) -> None:
        logs = Path(_temp_dir, "session_latest", "logs")
        logs.mkdir(parents=True)
        (logs / "raylet.err").write_text("no memory left\n")
        raise RuntimeError("the node timed out")

    monkeypatch.setattr(ray, "init", fail)
    with pytest.raises(RuntimeError, match="the node timed out") as refused:
        start_ray(Cluster())
    assert refused.value.__notes__ == ["raylet.err:\nno memory left"]
    assert list(place.iterdir()) == []


@pytest.mark.slow
def test_a_cluster_is_joined_if_it_asks_for_a_token_that_nobody_else_reads(tmp_path: Path) -> None:
    def refusal(address: str) -> str | None:
        variables = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
        variables |= {"RAY_AUTH_TOKEN_PATH": str(token)}
        command = [sys.executable, "-m", "rlstack.preflight.join_cluster", address]
        done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=120)
        return json.loads(done.stdout.splitlines()[-1])["problem"]

    token = tmp_path / "token"
    token.touch(mode=0o600)
    token.write_text(ENVIRONMENT["RAY_AUTH_TOKEN"])
    with ray_nodes(["127.0.0.4"], num_cpus=1) as address:
        assert refusal(address) is None
        token.chmod(0o644)
        assert f"chmod 600 {token}" in (refusal(address) or "")
        token.chmod(0o600)
    with ray_nodes(["127.0.0.4"], num_cpus=1, auth="disabled") as address:
        assert f"cluster.address = {address}: this cluster asks for no token" in (refusal(address) or "")
