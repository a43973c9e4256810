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

import psutil
import pytest
import ray
from ray._private import worker

from rlstack.config.schema import Cluster
from rlstack.errors import ConfigError
from rlstack.orchestration.join_ray import PAGE, own_clusters
from rlstack.orchestration.loopback import LOOPBACK
from rlstack.orchestration.ray_session import end_ray, start_ray, text_to, with_descendants
from tests.e2e.nodes import ENVIRONMENT, ray_nodes
from tests.markdown import anchors


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


def test_a_ray_that_is_interrupted_while_it_starts_ends_before_its_folder_goes(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*, _temp_dir: str, **settings: object) -> None:
        Path(_temp_dir).mkdir()
        writes = (
            "import pathlib, sys\nwhile True: pathlib.Path(sys.argv[1]).mkdir(exist_ok=True, parents=True)"
        )
        started.append(subprocess.Popen([sys.executable, "-c", writes, f"{_temp_dir}/ray/raylet"]))
        raise KeyboardInterrupt

    started: list[subprocess.Popen[bytes]] = []
    monkeypatch.setattr(ray, "init", interrupted)
    with pytest.raises(KeyboardInterrupt):
        start_ray(Cluster())
    (begun,) = started
    left = psutil.pid_exists(begun.pid)
    begun.kill()
    begun.wait()
    assert not left and list(place.iterdir()) == []


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a cluster of one node, which takes the token of ENVIRONMENT."""
    with ray_nodes(["127.0.0.4"], num_cpus=1) as address:
        yield address


@pytest.fixture
def token(tmp_path: Path) -> Path:
    """The file with the cluster's token, which only its owner reads."""
    path = tmp_path / "token"
    path.touch(mode=0o600)
    path.write_text(ENVIRONMENT["RAY_AUTH_TOKEN"])
    return path


def refusal(address: str, token: Path, *, limit_s: float = 60, **variables: str) -> str | None:
    """The error of a process that joins with `token` and leaves; other variables of Ray's are not set."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    command = [sys.executable, "-m", "rlstack.preflight.join_cluster", address]
    done = subprocess.run(
        command,
        env=others | {"RAY_AUTH_TOKEN_PATH": str(token)} | variables,
        capture_output=True,
        text=True,
        timeout=limit_s,
    )
    problem: str | None = json.loads(done.stdout.splitlines()[-1])["problem"]
    return problem


@pytest.mark.slow
def test_a_cluster_is_joined_if_it_asks_for_a_token_that_nobody_else_reads(cluster: str, token: Path) -> None:
    assert refusal(cluster, token) is None  # whether RAY_AUTH_MODE is set or not
    token.chmod(0o644)
    assert f"chmod 600 {token}" in (refusal(cluster, token) or "")
    token.chmod(0o600)
    with ray_nodes(["127.0.0.5"], num_cpus=1, auth="disabled") as address:
        assert f"cluster.address = {address}: this cluster asks for no token" in (
            refusal(address, token) or ""
        )


@pytest.mark.slow
def test_auto_joins_the_only_ray_that_this_user_runs_here(cluster: str, token: Path) -> None:
    others = own_clusters() - {cluster}
    found = refusal("auto", token, RAY_ADDRESS="")
    if others:
        assert found is not None and cluster in found and "auto finds the only Ray that you run" in found
    else:
        assert found is None


def test_a_ray_that_has_ended_or_is_in_another_network_is_not_taken_for_one_here(tmp_path: Path) -> None:
    shutil.copyfile("/bin/sh", tmp_path / "raylet")
    (tmp_path / "raylet").chmod(0o700)
    command = [tmp_path / "raylet", "-c", "echo; read line"]  # with the name of a raylet, and its argument
    elsewhere = ["unshare", "--net"] if os.getuid() == 0 else []
    started = [
        subprocess.Popen(
            [*before, *command, f"--gcs-address={address}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for before, address in (([], "127.0.0.9:1"), (elsewhere, "127.0.0.9:2"), ([], "127.0.0.9:3"))
    ]
    try:
        for process in started:
            assert process.stdout is not None and process.stdout.readline() == b"\n"
        started[2].kill()
        os.waitid(os.P_PID, started[2].pid, os.WEXITED | os.WNOWAIT)  # it stays as a zombie
        found = own_clusters()
        assert "127.0.0.9:1" in found and "127.0.0.9:3" not in found
        if not elsewhere:
            pytest.skip("only root can make a network")
        assert "127.0.0.9:2" not in found
    finally:
        for process in started:
            process.communicate()


@pytest.mark.slow
def test_a_wrong_token_a_missing_one_and_a_node_that_is_down_are_three_errors(
    cluster: str, token: Path
) -> None:
    prefix = f"cluster.address = {cluster}: "
    assert refusal(cluster, token.with_name("nowhere")) == (
        f"{prefix}this user has no token for the cluster ({token.with_name('nowhere')}: No such file or "
        "directory); put the head node's token there (mode 0600), or into RAY_AUTH_TOKEN"
    )
    token.write_text("0" * 64)
    assert refusal(cluster, token) == (
        f"{prefix}the cluster has another token than {token}; copy the one with which its head node was "
        f"started, as {PAGE} has it"
    )
    assert "another token than RAY_AUTH_TOKEN;" in (
        refusal(cluster, token, RAY_AUTH_TOKEN="1" * 64, RAY_AUTH_MODE="token") or ""
    )
    assert "nothing answers at 127.0.0.8:9 within 5 s (Connection refused)" in (
        refusal("127.0.0.8:9", token) or ""
    )


def test_the_page_that_an_error_names_has_the_section() -> None:
    name, _, anchor = PAGE.partition("#")
    assert anchor in anchors(Path(__file__).parents[2] / name)
