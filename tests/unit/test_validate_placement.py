"""Settings of placement, ports and environment that are refused, and what is not."""

from __future__ import annotations

import pytest

from rlstack.config.schema import Cluster, Placement, Rollout, RunConfig, Transfer, TransferChannel
from rlstack.config.validate_placement import placement_problems


def problems(*, overlap: bool = False, transfer: Transfer | None = None, **cluster) -> list[str]:
    return placement_problems(
        RunConfig(
            rollout=Rollout(overlap=overlap), transfer=transfer or Transfer(), cluster=Cluster(**cluster)
        )
    )


def test_engines_on_the_policys_gpus_take_turns_with_it() -> None:
    assert problems(placement=Placement.colocated) == []
    (only,) = problems(placement=Placement.colocated, overlap=True)
    assert "rollout.overlap = true: false is accepted with cluster.placement = colocated" in only
    assert problems(overlap=True) == []


def test_the_driver_is_on_a_node_of_the_cluster() -> None:
    assert problems(address="auto") == problems(address="10.0.0.1:6379") == []
    (only,) = problems(address="ray://10.0.0.1:10001")
    assert "cluster.address = ray://10.0.0.1:10001: auto | HOST:PORT is accepted" in only


@pytest.mark.parametrize(
    "address", ["secret@host:1", "host:1?token=secret", "host", "http://secret@host:1", ""]
)
def test_an_address_is_a_host_and_a_port(address: str) -> None:
    (only,) = problems(address=address)
    assert only.startswith("cluster.address = ") and "auto | HOST:PORT is accepted" in only


def test_shared_memory_needs_one_host() -> None:
    ipc = Transfer(channel=TransferChannel.ipc)
    (only,) = problems(transfer=ipc, address="host:6379")
    assert "transfer.channel = ipc: auto | network is accepted with cluster.address = host:6379" in only
    assert problems(transfer=ipc, address="host:6379", placement=Placement.colocated) == []


@pytest.mark.parametrize("ports", [[], [20000], [20000, 19999], [80, 20000], [20000, 65536], [1024, 2048, 3]])
def test_ports_are_a_range(ports: list[int]) -> None:
    (only,) = problems(port_range=ports)
    assert only.startswith(f"cluster.port_range = {ports}: ")
    assert problems(port_range=[20000, 20000]) == []


@pytest.mark.parametrize(
    "name",
    [
        "LD_PRELOAD",
        "LD_LIBRARY_PATH",
        "PYTHONPATH",
        "PATH",
        "VLLM_PLUGINS",
        "NCCL_NET_PLUGIN",
        "NCCL_CONF_FILE",
        "UCX_MODULE_DIR",
        "FI_PROVIDER_PATH",
        "NCCL_NET",
        "NCCL_TUNER_CONFIG",
        "NCCL_RAS_ADDR",
        "NCCL_COMM_ID",
        "UCX_STATS_DEST",
        "UCX_GDB_COMMAND",
        "UCX_HANDLE_ERRORS",
        "TORCH_NCCL_DUMP_ON_TIMEOUT",
        "NCCL_DEBUG=x",
        "nccl_debug",
        "",
    ],
)
def test_the_environment_is_for_the_network_and_loads_nothing(name: str) -> None:
    (only,) = problems(env={name: "x"})
    assert only.startswith(f"cluster.env.{name} = x: variables that tune the network are accepted, such as ")


@pytest.mark.parametrize(
    "value",
    ["/tmp/x", "a/b", "file:x", "FILE:x", "a\nb", "a\x1b[2J", "$(id)", "`id`", "a b", "%h", "~", "\u2215"],
)
def test_the_environment_names_no_file_and_no_command(value: str) -> None:
    (only,) = problems(env={"NCCL_IB_HCA": value})
    assert only.startswith(f"cluster.env.NCCL_IB_HCA = {value!r}: names and numbers are accepted")


def test_settings_of_the_network_are_accepted() -> None:
    accepted = {
        "NCCL_SOCKET_IFNAME": "eth0",
        "NCCL_IB_HCA": "^=mlx5_0:1,mlx5_1",
        "NCCL_ALGO": "allreduce:tree,ring;broadcast:ring",
        "NCCL_P2P_LEVEL": "",
        "TORCH_NCCL_ASYNC_ERROR_HANDLING": "1",
        "GLOO_SOCKET_IFNAME": "eth0",
        "UCX_TLS": "rc",
        "FI_PROVIDER": "efa",
    }
    assert problems(env=accepted) == []
