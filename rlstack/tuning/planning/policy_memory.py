"""What one policy rank allocates on its GPU, figure by figure.

Training is as `policy/optimizer.py` and `policy/layers.py` set it up: fp32 gradients, and the distributed
optimiser (ZeRO-1: Rajbhandari et al. 2019, arXiv 1910.02054) over data- and context-parallel ranks.
"""

from __future__ import annotations

from dataclasses import dataclass

from rlstack.transfer.outbox import NUM_SLOTS
from rlstack.tuning.parts import Layout
from rlstack.tuning.planning.activation_memory import held_activations
from rlstack.tuning.planning.activations import Layers
from rlstack.tuning.planning.demand import Demand
from rlstack.tuning.planning.derivation import Figure, derive, total
from rlstack.tuning.planning.shards import buffer_elements, layer_parameters, policy_parameters
from rlstack.tuning.planning.workspace import backward_workspace


@dataclass(frozen=True, slots=True, kw_only=True)
class RankMemory:
    """A rank's memory. `parts` are bytes that add up to `total`; `details` what they are computed from."""

    parts: list[Figure]
    details: list[Figure]
    limit: Figure  # bytes that may be taken

    @property
    def total(self) -> Figure:
        return total("total", self.parts)

    @property
    def fits(self) -> bool:
        return self.total.value <= self.limit.value


def policy_rank_memory(demand: Demand, layout: Layout, *, stage: int) -> RankMemory:
    """Of a rank of pipeline stage `stage`."""
    states, of_states = model_states(demand, layout, stage=stage)
    layers = Layers.transformer_engine
    activations, of_activations = held_activations(demand, layout, stage=stage, layers=layers)
    assumed = demand.assumptions
    parts = [
        *states,
        activations,
        backward_workspace(demand, layout, stage=stage, layers=layers),
        derive(
            "transfer buckets",
            "B",
            "min(slots*bucket_mib*mib, weights)",
            slots=NUM_SLOTS,
            bucket_mib=demand.config.transfer.bucket_mib,
            mib=2**20,
            weights=states[0].value,
        ),
        derive(
            "CUDA and NCCL",
            "B",
            "(context_gb + nccl_gb)*gb",
            context_gb=assumed.context_gb,
            nccl_gb=assumed.nccl_gb,
            gb=10**9,
        ),
    ]
    return RankMemory(parts=parts, details=[*of_states, *of_activations], limit=_limit(demand))


def model_states(demand: Demand, layout: Layout, *, stage: int) -> tuple[list[Figure], list[Figure]]:
    """Weights, gradients, optimiser and reference, as megatron-core allocates them; and what they are of."""
    counts = policy_parameters(demand.architecture, layout, stage=stage)
    parameters = counts[-1].value
    buffer = buffer_elements(demand.architecture, layout, stage=stage)
    states = [
        derive("weights", "B", "itemsize*buffer", itemsize=demand.itemsize, buffer=buffer.value),
        derive("gradients", "B", "4*buffer", buffer=buffer.value),
        derive(
            "optimiser",
            "B",
            # Two moments, and the weights in fp32 where the model's are not.
            f"{8 if demand.itemsize == 4 else 12}*min(parameters, buffer/replicas)",
            parameters=parameters,
            buffer=buffer.value,
            replicas=layout.replicas,
        ),
    ]
    if demand.keeps_reference:
        states.append(
            derive("reference", "B", "itemsize*parameters", itemsize=demand.itemsize, parameters=parameters)
        )
    if demand.fp8 is not None:
        states.append(_fp8_weights(demand, layout, stage=stage))
    return states, [*counts, buffer]


def _fp8_weights(demand: Demand, layout: Layout, *, stage: int) -> Figure:
    """What Transformer Engine makes of the layers' weights in a step's first micro-batch, and keeps: by rows
    and by columns (transformer_engine/pytorch/module/base.py, quantize_weight)."""
    architecture, fp8 = demand.architecture, demand.config.policy.fp8
    layers = sum(layout.chunk_sizes(architecture.num_layers, stage=stage))
    in_bf16 = (fp8.bf16_layers_at_start if stage == 0 else 0) + (
        fp8.bf16_layers_at_end if stage == layout.pipeline_parallel - 1 else 0
    )
    tp = layout.tensor_parallel
    matrices = layer_parameters(architecture, tensor_parallel=tp, kv_heads=architecture.num_kv_heads // tp)
    return derive(
        "weights in FP8",
        "B",
        "2*max(0, stage_layers - in_bf16)*layer",
        stage_layers=layers,
        in_bf16=in_bf16,
        layer=matrices.value,
    )


def _limit(demand: Demand) -> Figure:
    return derive(
        "limit",
        "B",
        "memory_gb*gb*(1 - margin)",
        memory_gb=demand.gpu.memory_gb,
        gb=10**9,
        margin=demand.assumptions.margin,
    )
