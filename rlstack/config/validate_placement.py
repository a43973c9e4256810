"""What validate.py refuses about where roles run, and what their environment may hold."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator

from rlstack.config.network_variables import EXAMPLES, NETWORK_VALUE, NETWORK_VARIABLES
from rlstack.config.schema import Placement, RunConfig, TransferChannel, TransferMethod
from rlstack.urls import without_secrets

ADDRESS = re.compile(r"auto|[A-Za-z0-9_.:\[\]-]+:[0-9]+")
FIRST_PORT, LAST_PORT = 1024, 65535


def placement_problems(config: RunConfig) -> list[str]:
    """Settings of placement, ports and environment that cannot work, alone or together."""
    return [*_address(config), *_turns(config), *_channel(config), *_ports(config), *_environment(config)]


def _address(config: RunConfig) -> Iterator[str]:
    address = config.cluster.address
    if address is not None and not ADDRESS.fullmatch(address):
        yield (
            f"cluster.address = {without_secrets(address)}: auto | HOST:PORT is accepted, for the driver is "
            "on a node of the cluster; from elsewhere use rlstack launch with the dashboard's address"
        )


def _turns(config: RunConfig) -> Iterator[str]:
    if config.cluster.placement is Placement.colocated and config.rollout.overlap:
        yield (
            "rollout.overlap = true: false is accepted with cluster.placement = colocated, where policy and "
            "engines take turns; set it to false, or cluster.placement to split"
        )


def _channel(config: RunConfig) -> Iterator[str]:
    transfer, cluster = config.transfer, config.cluster
    if transfer.channel is not TransferChannel.ipc:
        return
    if transfer.method is not TransferMethod.reshard:
        yield (
            f"transfer.channel = ipc: auto | network is accepted with transfer.method = "
            f"{transfer.method.value}; set one or the other"
        )
    if cluster.address is not None and cluster.placement is Placement.split:
        yield (
            f"transfer.channel = ipc: auto | network is accepted with cluster.address = {cluster.address}, "
            "for processes on several nodes share no memory; set it to network"
        )


def _ports(config: RunConfig) -> Iterator[str]:
    ports = config.cluster.port_range
    if ports is None:
        return
    if len(ports) != 2 or not FIRST_PORT <= ports[0] <= ports[1] <= LAST_PORT:
        yield (
            f"cluster.port_range = {ports}: the first and the last port, from {FIRST_PORT} to {LAST_PORT}, "
            "are accepted; give for example [20000, 20063]"
        )


def _environment(config: RunConfig) -> Iterator[str]:
    for name, value in config.cluster.env.items():
        if name not in NETWORK_VARIABLES:
            close = difflib.get_close_matches(name, NETWORK_VARIABLES)
            yield (
                f"cluster.env.{name} = {value}: variables that tune the network are accepted, such as "
                f"{', '.join(close or EXAMPLES)}; set others where Ray is started on the nodes"
            )
        elif not NETWORK_VALUE.fullmatch(value) or "file:" in value.lower():
            yield (
                f"cluster.env.{name} = {value!r}: names and numbers are accepted, of letters, digits and "
                "any of _.,:;^=+-, but no path and no file; correct it, or set it where Ray is started"
            )
