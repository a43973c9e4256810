"""Policy and engines on the same GPUs: they take turns with the memory."""

from __future__ import annotations

from dataclasses import replace

from rlstack.config.schema import RunConfig, TransferChannel, TransferMethod
from rlstack.errors import ConfigError


def on_shared_gpus(config: RunConfig) -> RunConfig:
    """The settings with the one way for weights that there is between two processes on one GPU.

    Raises ConfigError if they ask for another one.
    """
    transfer = config.transfer
    why = "with cluster.placement = colocated on GPUs, for NCCL does not join two ranks on one"
    if transfer.method is not TransferMethod.reshard:
        raise ConfigError(f"transfer.method = {transfer.method.value}: reshard is accepted {why}; set it so")
    if transfer.channel is TransferChannel.network:
        raise ConfigError(f"transfer.channel = network: auto | ipc is accepted {why}; set it to auto")
    return replace(config, transfer=replace(transfer, channel=TransferChannel.ipc))
