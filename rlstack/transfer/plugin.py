"""What vLLM runs in each of its processes before it loads a model: entry point `vllm.general_plugins`."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

from rlstack.collectives import SECRET, demand_proof

BACKEND = "reshard"  # the name under which vLLM finds our weight transfer engine

# "1" keeps the weights of CPU linears as they are, for transfer.landing=direct. A variable, because nothing
# else reaches vLLM's workers before they load the model.
PLAIN_WEIGHTS = "RLSTACK_PLAIN_WEIGHTS"


def register() -> None:
    """Make our weight transfer engine known to vLLM, and have an engine's workers of a run know each other.

    Harmless in a vLLM that is none of a run's.
    """
    from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory

    with suppress(ValueError):  # it has it already: vLLM may load plugins more than once
        WeightTransferEngineFactory.register_engine(BACKEND, "rlstack.transfer.vllm_engine", "ReshardEngine")
    if os.environ.get(PLAIN_WEIGHTS) == "1":
        keep_plain_weights()
    if SECRET in os.environ:
        demand_proof()


def keep_plain_weights() -> None:
    """Let vLLM's CPU linears compute with `layer.weight` itself.

    vLLM 0.32 packs the weight for oneDNN into a closure and leaves an empty parameter behind, or one that is
    not looked at any more: nothing could be written to it. Slower, and meant for tests and benchmarks of the
    direct landing, which is for GPUs. Its callers import the function when they call it.
    """
    import torch
    from vllm.model_executor.layers import utils

    def keep(layer: Any, remove_weight: bool) -> None:
        layer.cpu_linear = torch.nn.functional.linear

    utils.dispatch_cpu_unquantized_gemm = keep
