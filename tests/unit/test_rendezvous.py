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

from rlstack.rendezvous import connect_store, private_place, serve_store, store_in

HOST = "127.0.0.1"
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


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(RuntimeError, match=r"192\.0\.2\.1:20000 cannot be listened on"):
        serve_store("192.0.2.1", timeout_s=5, port_range=[20000, 20001])


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
