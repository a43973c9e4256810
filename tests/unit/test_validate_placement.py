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
        "NCCL_DEBUG=x",
        "nccl_debug",
        "",
    ],
)
def test_the_environment_is_for_the_network_and_loads_nothing(name: str) -> None:
    (only,) = problems(env={name: "x"})
    assert only.startswith(f"cluster.env.{name} = x: ")


def test_settings_of_the_network_are_accepted() -> None:
    accepted = {
        "NCCL_SOCKET_IFNAME": "eth0",
        "NCCL_IB_HCA": "mlx5_0,mlx5_1",
        "TORCH_NCCL_ASYNC_ERROR_HANDLING": "1",
        "GLOO_SOCKET_IFNAME": "eth0",
        "UCX_TLS": "rc",
        "FI_PROVIDER": "efa",
    }
    assert problems(env=accepted) == []
    (only,) = problems(env={"NCCL_IB_HCA": "a\nb"})
    assert "without control characters" in only
