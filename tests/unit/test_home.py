"""Which network interface a node's address is on."""

from __future__ import annotations

import pytest

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
