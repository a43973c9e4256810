"""What a rank holds of all micro-batches whose backward passes are still to come."""

from __future__ import annotations

from rlstack.config.schema import Recompute
from rlstack.tuning.parts import Layout
from rlstack.tuning.planning.activations import (
    Layers,
    MicroBatchShape,
    head_activations,
    layer_activations,
    recomputed_activations,
)
from rlstack.tuning.planning.demand import Demand
from rlstack.tuning.planning.derivation import Figure, derive


def held_activations(
    demand: Demand, layout: Layout, *, stage: int, layers: Layers
) -> tuple[Figure, list[Figure]]:
    """What backward passes still to come need, with what one of them makes again; and what it is of."""
    architecture, recompute = demand.architecture, demand.config.policy.recompute
    shape = micro_batch_shape(demand, layout, layers)
    details = layer_activations(architecture, shape, layers, recompute)
    chunk = max(layout.chunk_sizes(architecture.num_layers, stage=stage))
    per_token, inputs = "chunk_layers*layer", {"chunk_layers": chunk, "layer": details[-1].value}
    again = recomputed_layers(demand, chunk)
    if again < chunk:
        per_token = "again_layers*layer + (chunk_layers - again_layers)*whole_layer"
        *_, whole = layer_activations(architecture, shape, layers)
        inputs |= {"again_layers": again, "whole_layer": whole.value}
    if stage == 0:
        per_token += " + 8"  # the ids, for the embedding
    # The head of a micro-batch has gone before a layer of it is made again; only one has got as far as that.
    beside = []
    if stage == layout.pipeline_parallel - 1:
        details += head_activations(architecture, shape, layers)
        beside.append("head")
        inputs["head"] = details[-1].value
    # Layers that are kept come after the others: the first of them has gone before another is made again.
    if recompute is not Recompute.none and again == chunk:
        details.append(recomputed_activations(architecture, shape, layers, recompute))
        beside.append("again")
        inputs["again"] = details[-1].value
    in_flight = chunks_in_flight(demand, layout, stage=stage)
    more = f" + max({', '.join(beside)})" if len(beside) > 1 else "".join(f" + {part}" for part in beside)
    held = derive(
        "activations",
        "B",
        f"tokens*(in_flight*({per_token}){more})",
        tokens=shape.num_tokens,
        in_flight=in_flight.value,
        **inputs,
    )
    return held, [*details, in_flight]


def recomputed_layers(demand: Demand, chunk_layers: int) -> int:
    """Layers of a chunk of so many whose activations are treated as policy.recompute says."""
    policy = demand.config.policy
    if policy.recompute is not Recompute.full or policy.recompute_layers is None:
        return chunk_layers
    return min(policy.recompute_layers, chunk_layers)


def recomputed_share(demand: Demand, layout: Layout) -> float:
    """Of the model's layers, as `recomputed_layers`."""
    num_layers = demand.architecture.num_layers
    chunks = [
        size
        for stage in range(layout.pipeline_parallel)
        for size in layout.chunk_sizes(num_layers, stage=stage)
    ]
    return sum(recomputed_layers(demand, size) for size in chunks) / num_layers


def chunks_in_flight(demand: Demand, layout: Layout, *, stage: int) -> Figure:
    """Forward passes of a chunk of stage `stage` that wait for their backward passes, at most.

    1F1B has as many micro-batches as there are stages from here to the end (Narayanan et al. 2021, arXiv
    2104.04473); interleaved, as megatron/core/pipeline_parallel/schedules.py warms up with, and one more.
    """
    names = {
        "micro_batches": demand.most_micro_batches(layout),
        "pp": layout.pipeline_parallel,
        "stage": stage,
    }
    if layout.virtual_pipeline == 1:
        return derive("micro-batches in flight", "", "min(micro_batches, pp - stage)", **names)
    return derive(
        "chunks in flight",
        "",
        "min(micro_batches*vp, 2*(pp - stage - 1) + (vp - 1)*pp + 1)",
        vp=layout.virtual_pipeline,
        **names,
    )


def micro_batch_shape(demand: Demand, layout: Layout, layers: Layers) -> MicroBatchShape:
    """Of the largest micro-batch, on one rank."""
    return MicroBatchShape(
        num_tokens=demand.rank_tokens(layout),
        itemsize=demand.itemsize,
        tensor_parallel=layout.tensor_parallel,
        sequence_parallel=demand.config.policy.sequence_parallel and layout.tensor_parallel > 1,
        context_parallel=layout.context_parallel,
        fp8=demand.fp8,
        fused=layers is Layers.transformer_engine and demand.fused,
    )
