"""What validate.py refuses about where roles run, and what their environment may hold."""

from __future__ import annotations

from collections.abc import Iterator

from rlstack.config.schema import Placement, RunConfig, TransferChannel, TransferMethod

# Settings of the network. Other variables decide what code a process runs: LD_PRELOAD, PYTHONPATH.
PREFIXES = ("NCCL_", "TORCH_NCCL_", "GLOO_", "UCX_", "FI_")
# These make the libraries load code, or read or write files.
LOADERS = ("PLUGIN", "PATH", "DIR", "FILE", "LIB", "MODULE")
FIRST_PORT, LAST_PORT = 1024, 65535


def placement_problems(config: RunConfig) -> list[str]:
    """Settings of placement, ports and environment that cannot work, alone or together."""
    return [*_address(config), *_turns(config), *_channel(config), *_ports(config), *_environment(config)]


def _address(config: RunConfig) -> Iterator[str]:
    address = config.cluster.address
    if address is not None and "://" in address:
        yield (
            f"cluster.address = {address}: auto | HOST:PORT is accepted, for the driver is on a node of the "
            "cluster; from elsewhere use rlstack launch with the dashboard's address"
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
        if not name.startswith(PREFIXES) or not name.isidentifier():
            yield (
                f"cluster.env.{name} = {value}: variables that begin with {' | '.join(PREFIXES)} are "
                "accepted; set others where Ray is started on the nodes"
            )
        elif any(word in name for word in LOADERS):
            yield (
                f"cluster.env.{name} = {value}: settings of the network are accepted, not what libraries "
                "load or write; set it where Ray is started on the nodes"
            )
        elif not value.isprintable():
            yield f"cluster.env.{name} = {value!r}: text without control characters is accepted; correct it"
