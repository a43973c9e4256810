"""A Ray without a token, and a token that others can read, are refused."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import psutil
import pytest

from rlstack.config.ray_token import mode_problem, token_problem
from rlstack.config.schema import Cluster, RunConfig
from rlstack.config.surroundings import surroundings_problems
from rlstack.errors import ConfigError
from rlstack.orchestration.cluster_job import connect
from rlstack.orchestration.ray_session import start_ray


@pytest.fixture
def token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file in which this user has a cluster's token, for its owner only."""
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ray").mkdir(mode=0o700)
    path = tmp_path / ".ray" / "auth_token"
    path.touch(mode=0o600)
    path.write_text("5ec2e7")
    return path


@pytest.mark.parametrize("mode", ["disabled", "Disabled", "none", "off"])
@pytest.mark.parametrize("address", [None, "127.0.0.1:9"])
def test_an_environment_that_turns_tokens_off_is_refused_before_anything_starts(
    mode: str, address: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", mode)
    settings = Cluster(address=address)
    assert any(f"RAY_AUTH_MODE={mode}" in each for each in surroundings_problems(RunConfig(cluster=settings)))
    before = psutil.Process().children()
    with pytest.raises(ConfigError, match=f"RAY_AUTH_MODE={mode} in the environment: only token .*; unset"):
        start_ray(settings)
    with pytest.raises(ConfigError, match=f"RAY_AUTH_MODE={mode}"):
        connect("http://127.0.0.1:9")
    assert psutil.Process().children() == before


@pytest.mark.parametrize("mode", [None, "", "token", "TOKEN"])
def test_any_other_environment_is_accepted(mode: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    if mode is not None:
        monkeypatch.setenv("RAY_AUTH_MODE", mode)
    assert mode_problem() is None


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_a_token_for_its_owner_only_is_accepted(token: Path, mode: int) -> None:
    token.chmod(mode)
    assert token_problem() is None


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620, 0o666])
@pytest.mark.parametrize("is_named", [False, True])
def test_a_token_that_others_get_at_is_refused(
    token: Path, mode: int, is_named: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    token.chmod(mode)
    if is_named:
        monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
        monkeypatch.setenv("HOME", "/nowhere")
    problem = token_problem() or ""
    assert problem.startswith(f"{token} has mode {mode:04o}") and f"chmod 600 {token}" in problem
    monkeypatch.setenv("RAY_AUTH_TOKEN", "5ec2e7")  # which Ray takes first
    assert token_problem() is None


def test_a_token_that_is_not_there_or_another_user_s_is_refused(token: Path) -> None:
    token.write_text("\n")
    assert "is empty" in (token_problem() or "")
    if os.getuid() == 0:
        os.chown(token, 65534, 65534)
        assert "belongs to another user" in (token_problem() or "")
    token.unlink()
    assert "No such file or directory); put the head node's token" in (token_problem() or "")


def test_a_file_in_a_folder_for_everyone_does_not_choose_the_cluster(
    tmp_path: Path, token: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(psutil, "process_iter", lambda names: [])
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    (tmp_path / "ray").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        stranger.settimeout(0)
        address = f"127.0.0.1:{stranger.getsockname()[1]}"
        (tmp_path / "ray" / "ray_current_cluster").write_text(address)
        with pytest.raises(ConfigError, match="auto finds the only Ray that you run on this machine"):
            start_ray(Cluster(address="auto"))
        with pytest.raises(BlockingIOError):
            stranger.accept()
