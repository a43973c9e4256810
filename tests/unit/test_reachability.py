"""Who connects to whom, whether a word gets through, and what is said where it does not."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator

import pytest

from rlstack.orchestration import handshake
from rlstack.orchestration.handshake import Words
from rlstack.orchestration.placement import Bundle, Decision, Node, Slot
from rlstack.orchestration.reachability import Door, Failure, address_of, lines
from rlstack.orchestration.routes import Ports, Route, routes

A, B, C, D = (Node(name, f"10.0.0.{i}", 0, 8) for i, name in enumerate("abcd", 1))
HOST, OTHER = "127.0.0.1", "127.0.0.2"
WORDS = Words.new()


def decision(policy: list[Node], engines: list[Node]) -> Decision:
    nodes = list(dict.fromkeys([*policy, *engines]))
    return Decision(
        bundles=tuple(Bundle(node, 0, 1) for node in nodes),
        policy=tuple(Slot(nodes.index(node), ()) for node in policy),
        engines=tuple(Slot(nodes.index(node), ()) for node in engines),
        reward_models={},
        use_gpus=False,
    )


def test_ranks_go_to_rank_0_and_all_to_the_driver_and_to_each_other() -> None:
    assert routes(decision([A, A, B], [B, C]), driver=D) == [
        Route(A, Ports.store, (A, B)),
        Route(D, Ports.store, (A, B, C)),
        Route(A, Ports.any, (B, C)),
        Route(B, Ports.any, (A, C)),
        Route(C, Ports.any, (A, B)),
    ]


def test_a_node_with_rank_0_and_the_driver_listens_once() -> None:
    assert routes(decision([A, B], [C]), driver=A)[:2] == [
        Route(A, Ports.store, (A, B, C)),
        Route(A, Ports.any, (B, C)),
    ]


def test_one_node_has_nobody_to_reach_but_a_driver_that_is_elsewhere() -> None:
    assert routes(decision([A, A], [A]), driver=A) == []
    assert routes(decision([A, A], [A]), driver=D) == [Route(D, Ports.store, (A,))]
    assert routes(decision([], [A, B]), driver=D) == []


def test_connections_of_a_node_grow_with_the_nodes_and_no_faster() -> None:
    nodes = [Node(str(i), f"10.0.1.{i}", 0, 8) for i in range(64)]
    found = routes(decision(nodes[:32], nodes[32:]), driver=A)
    assert max(sum(node in route.clients for route in found) for node in nodes) == 65
    assert not any(A in route.clients for route in found)


Serve = Callable[..., object]


def call_at(serve: Serve, words: Words = WORDS, *, limit_s: float = 5.0) -> str | None:
    """What is said of a call to what `serve` starts on a free port."""

    async def both() -> str | None:
        server = await serve()
        try:
            return await handshake.call(OTHER, handshake.port_of(server), words, limit_s=limit_s)
        finally:
            server.close()

    return asyncio.run(both())


async def ours() -> asyncio.Server:
    return await handshake.answer(OTHER, None, WORDS, limit_s=5.0)


async def echo() -> asyncio.Server:
    async def repeat(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.read(64))
        await writer.drain()

    return await asyncio.start_server(repeat, OTHER, 0)


def test_a_word_gets_through() -> None:
    assert call_at(ours) is None


def test_only_who_knows_the_word_gets_an_answer() -> None:
    assert call_at(ours, Words.new()) == "another program answers there"
    assert call_at(echo) == "another program answers there"


@pytest.fixture
def deaf() -> Iterator[int]:
    """A port whose listener takes no connections, so that nothing comes back."""
    with socket.create_server((HOST, 0)) as listener:
        yield listener.getsockname()[1]


def test_a_call_ends_without_an_answer(deaf: int) -> None:
    reason = asyncio.run(handshake.call(HOST, deaf, WORDS, limit_s=0.2))
    assert reason == "nothing came back within 0.2 s"


def test_a_refused_call_says_so(deaf: int) -> None:
    with socket.create_server((HOST, 0)) as closed:
        port = closed.getsockname()[1]
    assert asyncio.run(handshake.call(HOST, port, WORDS, limit_s=5.0)) == "Connection refused"


def test_one_line_names_the_nodes_and_the_port_and_what_to_open() -> None:
    store, other = Door(A, Ports.store, A.address, 20000), Door(B, Ports.any, "10.1.0.2", 41234)
    failures = [
        Failure(B, store, "nothing came back within 5 s"),
        Failure(C, store, "nothing came back within 5 s"),
        Failure(D, store, "Connection refused"),
        Failure(A, other, "nothing came back within 5 s"),
    ]
    opened = "open the ports 20000 to 20063 between the nodes"
    assert [*lines(failures, [20000, 20063])] == [
        "nodes 10.0.0.2, 10.0.0.3 cannot connect to 10.0.0.1 port 20000 (cluster.port_range): nothing came "
        f"back within 5 s; {opened}",
        "node 10.0.0.4 cannot connect to 10.0.0.1 port 20000 (cluster.port_range): Connection refused; "
        f"{opened}",
        "node 10.0.0.1 cannot connect to 10.1.0.2 port 41234 (gloo and NCCL take any of "
        "net.ipv4.ip_local_port_range): nothing came back within 5 s; open these ports between the nodes",
    ]
    (line,) = lines(failures[2:3], None)
    assert "so do the stores, with cluster.port_range = null" in line


@pytest.mark.parametrize(
    ("names", "address"),
    [
        ("eth0", "10.0.0.1"),
        ("=eth0", "10.0.0.1"),
        ("eth", "10.0.0.2"),
        ("=eth", None),
        ("ib0,eth0", "10.0.0.1"),
        ("^docker", None),
        ("=", None),
        ("wlan0", None),
    ],
)
def test_the_interface_that_is_named_is_listened_on(names: str, address: str | None) -> None:
    found = {"eth00": ["10.0.0.2"], "eth0": ["fe80::1", "10.0.0.1"], "ib0": ["fe80::2"]}
    assert address_of(names, found, "10.0.0.9") == address
