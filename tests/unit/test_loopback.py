"""A listener that other machines reach is found, in a process and below it; and no variable asks for one."""

from __future__ import annotations

import os
import re
import socket
import subprocess
from collections.abc import Iterator

import pytest

from rlstack.errors import StrangerError
from rlstack.orchestration import home
from rlstack.orchestration.loopback import refuse_listeners


def listener(host: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, 0), family=family)
    except OSError as error:
        pytest.skip(f"{host} cannot be listened on here: {error}")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1"])
def test_a_listener_on_loopback_is_fine(host: str) -> None:
    with listener(host):
        refuse_listeners()


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_one_for_everyone_is_not(host: str) -> None:
    with listener(host) as mine:
        port = mine.getsockname()[1]
        with pytest.raises(StrangerError, match=r"cluster\.address = null") as error:
            refuse_listeners()
    assert f"process {os.getpid()} " in str(error.value)
    assert f"listens on {host}, port {port}," in str(error.value)


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    with listener("0.0.0.0") as given:
        process = subprocess.Popen(["sleep", "600"], pass_fds=[given.fileno()])
    yield process
    process.kill()
    process.wait()


def test_nor_is_one_of_a_child(child: subprocess.Popen[bytes]) -> None:
    with pytest.raises(StrangerError, match=rf"process {child.pid} \({re.escape('sleep')}\) listens on"):
        refuse_listeners()


@pytest.mark.parametrize(
    ("address", "gloo", "nccl"), [("127.0.0.1", "lo", "=lo"), ("10.0.0.7", "eth9", "eth9")]
)
def test_on_one_machine_the_users_network_variables_do_not_count(
    monkeypatch: pytest.MonkeyPatch, address: str, gloo: str, nccl: str
) -> None:
    given = {"GLOO_SOCKET_IFNAME": "eth9", "NCCL_SOCKET_IFNAME": "eth9"}
    monkeypatch.setattr(os, "environ", given)
    monkeypatch.setattr(home.ray.util, "get_node_ip_address", lambda: address)
    monkeypatch.setattr(home, "interfaces", lambda: {"lo": ["127.0.0.1"], "eth0": ["10.0.0.7"]})
    home.settle((), {})
    assert (given["GLOO_SOCKET_IFNAME"], given["NCCL_SOCKET_IFNAME"]) == (gloo, nccl)
