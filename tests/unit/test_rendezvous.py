"""A store takes a port of the range that it is given, and listens on one address."""

from __future__ import annotations

import socket

import pytest

from rlstack.rendezvous import connect_store, serve_store

HOST = "127.0.0.1"


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
