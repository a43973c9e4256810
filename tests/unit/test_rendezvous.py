"""A store takes a port of the range that it is given, and listens on one address, or is one user's file."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlstack import ports
from rlstack.rendezvous import connect_store, private_place, serve_store, store_in

HOST = "127.0.0.1"
TIME_WAIT = "06"  # as /proc/net/tcp has it
NEIGHBOUR = """
import os, sys
os.setgroups([]), os.setgid(65534), os.setuid(65534)
file = sys.argv[1]
for attempt, path in ((open, file), (os.remove, file), (os.listdir, os.path.dirname(file))):
    try:
        attempt(path)
    except PermissionError:
        print("refused")
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def test_a_store_takes_the_first_port_that_is_free_and_says_when_none_is() -> None:
    with socket.socket() as taken:
        first = free_port()
        taken.bind((HOST, first))
        taken.listen()
        with pytest.raises(RuntimeError, match=rf"is free from {first} to {first} \(cluster.port_range\)"):
            serve_store(HOST, timeout_s=5, port_range=[first, first])
        store = serve_store(HOST, timeout_s=5, port_range=[first, first + 20])
        assert first < store.port <= first + 20
        store.set("key", "value")
        assert connect_store(HOST, store.port, timeout_s=5).get("key") == b"value"


def test_two_ports_serve_one_store_after_the_other(free_ports: list[int]) -> None:
    for _ in range(2):
        stores = [serve_store(HOST, timeout_s=5, port_range=free_ports) for _ in range(2)]
        clients = [connect_store(HOST, store.port, timeout_s=5) for store in stores]
        assert [store.port for store in stores] == free_ports
        del stores, clients  # the servers first, whose side of a connection then lingers
    assert {state for port in free_ports for state in states_of(port)} == {TIME_WAIT}


def test_who_cannot_connect_says_where_to_before_others_give_up(free_ports: list[int]) -> None:
    says = rf"cannot connect to {HOST} port {free_ports[0]} within 0\.5 s: open the ports"
    with pytest.raises(ConnectionError, match=says):
        connect_store(HOST, free_ports[0], timeout_s=1)
    store = serve_store(HOST, timeout_s=5)
    assert connect_store(HOST, store.port, timeout_s=7).timeout.total_seconds() == 7


def test_of_two_who_take_a_port_at_once_one_gets_the_next(
    free_ports: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    bind, between = socket.socket.bind, []

    class Raced(socket.socket):
        def bind(self, address: tuple[str, int]) -> None:
            bind(self, address)
            if not between:  # another process listens there after this one is bound
                between.append(socket.socket())
                between[0].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                between[0].bind(address)
                between[0].listen()

    monkeypatch.setattr(ports.socket, "socket", Raced)
    with ports.listen(HOST, free_ports) as listener:
        monkeypatch.undo()
        assert listener.getsockname()[1] == free_ports[1]
        assert between[0].getsockname()[1] == free_ports[0]
        assert [ports.is_busy(HOST, port) for port in free_ports] == [True, True]
    between[0].close()


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(RuntimeError, match=r"192\.0\.2\.1:20000 cannot be listened on"):
        serve_store("192.0.2.1", timeout_s=5, port_range=[20000, 20001])


@pytest.fixture
def free_ports() -> list[int]:
    """The first and the last of a range of two ports that nobody listens on."""
    while True:
        first = free_port()
        if not any(ports.is_busy(HOST, port) for port in (first, first + 1)):
            return [first, first + 1]


def states_of(port: int) -> list[str]:
    """The states of the connections of this machine's `port`, as the kernel writes them."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return [row[3] for row in rows if row[1].endswith(f":{port:04X}")]


@pytest.fixture
def file() -> Iterator[Path]:
    place = private_place()
    yield place
    shutil.rmtree(place.parent)


def test_a_file_is_one_store_for_all_who_open_it(file: Path) -> None:
    one, other = (store_in(file, timeout_s=5) for _ in range(2))
    one.set("key", "value")
    assert other.get("key") == b"value"
    with pytest.raises(RuntimeError, match=r"[Tt]imeout"):
        store_in(file, timeout_s=0.1).get("no key")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can play another user")
def test_a_neighbour_reaches_no_store_in_a_file(file: Path) -> None:
    store_in(file, timeout_s=5).set("key", "value")
    neighbour = [sys.executable, "-c", NEIGHBOUR, str(file)]
    done = subprocess.run(neighbour, cwd="/", capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "refused\n" * 3), done.stderr
