"""What one policy rank allocates on its GPU, figure by figure.

Training is as `policy/optimizer.py` and `policy/layers.py` set it up: fp32 gradients, the distributed
optimiser (ZeRO-1: Rajbhandari et al. 2019, arXiv 1910.02054), nothing recomputed but the logits.
"""

from __future__ import annotations

from dataclasses import dataclass

from rlstack.transfer.outbox import NUM_SLOTS
from rlstack.tuning.parts import Layout
from rlstack.tuning.planning.activations import Layers, MicroBatchShape, head_activations, layer_activations
from rlstack.tuning.planning.demand import Demand
from rlstack.tuning.planning.derivation import Figure, derive, total
from rlstack.tuning.planning.shards import buffer_elements, policy_parameters
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
    buffer = buffer_elements(parameters, layout)
    states = [
        derive("weights", "B", "itemsize*buffer", itemsize=demand.itemsize, buffer=buffer.value),
        derive("gradients", "B", "4*buffer", buffer=buffer.value),
        derive(
            "optimiser",
            "B",
            # Two moments, and the weights in fp32 where the model's are not.
            f"{8 if demand.itemsize == 4 else 12}*min(parameters, buffer/dp)",
            parameters=parameters,
            buffer=buffer.value,
            dp=layout.data_parallel,
        ),
    ]
    if demand.keeps_reference:
        states.append(
            derive("reference", "B", "itemsize*parameters", itemsize=demand.itemsize, parameters=parameters)
        )
    return states, [*counts, buffer]


def held_activations(
    demand: Demand, layout: Layout, *, stage: int, layers: Layers
) -> tuple[Figure, list[Figure]]:
    """What backward passes still to come need; and what it is of.

    Stage i of p holds as many micro-batches as 1F1B has in flight there, p - i (Narayanan et al. 2021, arXiv
    2104.04473), if a step has as many.
    """
    architecture, pp = demand.architecture, layout.pipeline_parallel
    shape = MicroBatchShape(
        num_tokens=demand.largest_micro_batch,
        itemsize=demand.itemsize,
        tensor_parallel=layout.tensor_parallel,
        sequence_parallel=demand.config.policy.sequence_parallel and layout.tensor_parallel > 1,
    )
    details = layer_activations(architecture, shape, layers)
    per_token = "layers/pp*layer"
    inputs = {"layers": architecture.num_layers, "pp": pp, "layer": details[-1].value}
    if stage == 0:
        per_token += " + 8"  # the ids, for the embedding
    if stage == pp - 1:
        details += head_activations(architecture, shape, layers)
        per_token += " + head"
        inputs["head"] = details[-1].value
    held = derive(
        "activations",
        "B",
        f"min(micro_batches, pp - stage)*tokens*({per_token})",
        micro_batches=demand.most_micro_batches(layout),
        stage=stage,
        tokens=shape.num_tokens,
        **inputs,
    )
    return held, details


def _limit(demand: Demand) -> Figure:
    return derive(
        "limit",
        "B",
        "memory_gb*gb*(1 - margin)",
        memory_gb=demand.gpu.memory_gb,
        gb=10**9,
        margin=demand.assumptions.margin,
    )
