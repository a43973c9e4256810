"""What one policy rank allocates on its GPU, figure by figure.

Training is as `policy/optimizer.py` and `policy/layers.py` set it up: fp32 gradients, and the distributed
optimiser (ZeRO-1: Rajbhandari et al. 2019, arXiv 1910.02054) over data- and context-parallel ranks.
"""

from __future__ import annotations

from dataclasses import dataclass

from rlstack.transfer.move_buckets import NUM_SLOTS
from rlstack.tuning.parts import Layout
from rlstack.tuning.planning.activation_memory import held_activations
from rlstack.tuning.planning.activations import Layers
from rlstack.tuning.planning.demand import Demand
from rlstack.tuning.planning.derivation import Figure, derive, total
from rlstack.tuning.planning.engine_memory import EngineMemory
from rlstack.tuning.planning.shards import buffer_elements, layer_parameters, policy_parameters
from rlstack.tuning.planning.workspace import backward_workspace

OPTIMISER = 2  # its place among `model_states`


@dataclass(frozen=True, slots=True, kw_only=True)
class RankMemory:
    """A rank's memory. `parts` are bytes that add up to `total`; `details` what they are computed from."""

    staying: list[Figure]  # all the time
    passing: list[Figure]  # within a step, or while a checkpoint is taken
    others: list[Figure]  # of an engine's worker that sleeps on the same GPU
    details: list[Figure]
    limit: Figure  # bytes that may be taken

    @property
    def parts(self) -> list[Figure]:
        return [*self.staying, *self.passing, *self.others]

    @property
    def total(self) -> Figure:
        return total("total", self.parts)

    @property
    def fits(self) -> bool:
        return self.total.value <= self.limit.value


def policy_rank_memory(
    demand: Demand, layout: Layout, *, stage: int, asleep: EngineMemory | None = None
) -> RankMemory:
    """Of a rank of pipeline stage `stage`; `asleep`: of the engine's worker that shares its GPU."""
    states, of_states = model_states(demand, layout, stage=stage)
    layers = Layers.transformer_engine
    activations, of_activations = held_activations(demand, layout, stage=stage, layers=layers)
    workspace = backward_workspace(demand, layout, stage=stage, layers=layers)
    stand_ins = [_gradient_stand_ins(demand, of_states[0])] if demand.fused else []
    passing = [activations, workspace]
    other = activations.value + workspace.value
    at_hand = 0.0
    if demand.config.policy.optimizer_offload:
        optimiser = states.pop(OPTIMISER)
        at_hand = optimiser.value
        passing.append(_stepping(optimiser=at_hand, other=other))
        of_states = [optimiser, *of_states]
        other += passing[-1].value
    if demand.config.schedule.save_every is not None:
        passing.append(_gathering(layout, buffer=of_states[-1].value, at_hand=at_hand, other=other))
    return RankMemory(
        staying=[*states, *stand_ins, *_communication(demand, weights=states[0].value)],
        passing=passing,
        others=[] if asleep is None else [asleep.sleeping],
        details=[*of_states, *of_activations],
        limit=_limit(demand),
    )


def _communication(demand: Demand, *, weights: float) -> list[Figure]:
    assumed = demand.assumptions
    return [
        derive(
            "transfer buckets",
            "B",
            "min(slots*bucket_mib*mib, weights)",
            slots=NUM_SLOTS,
            bucket_mib=demand.config.transfer.bucket_mib,
            mib=2**20,
            weights=weights,
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


def _stepping(*, optimiser: float, other: float) -> Figure:
    """Beyond the `other` bytes that the passes need, which are free by then: the optimiser's state, which
    lies in host memory else (policy/offload.py)."""
    return derive(
        "more while the optimiser steps", "B", "max(0, optimiser - passes)", optimiser=optimiser, passes=other
    )


def _gathering(layout: Layout, *, buffer: float, at_hand: float, other: float) -> Figure:
    """Beyond the `other` bytes that a step needs: a tensor of the optimiser's state in fp32, of all replicas
    and of this one (megatron/core/optimizer/distrib_optimizer.py, get_parameter_state_dp_zero), and the state
    itself where it lies in host memory else."""
    return derive(
        "more while a checkpoint is taken",
        "B",
        f"max(0, {'at_hand + ' if at_hand else ''}4*buffer*(1 + 1/replicas) - step)",
        **({"at_hand": at_hand} if at_hand else {}),
        buffer=buffer,
        replicas=layout.replicas,
        step=other,
    )


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


def _gradient_stand_ins(demand: Demand, layer: Figure) -> Figure:
    """Stand-ins that autograd gets for gradients in main_grad: one tensor for each shape of a layer's
    matrices, which stays (transformer_engine/pytorch/module/base.py, get_dummy_wgrad)."""
    return derive(
        "stand-ins of gradients", "B", "itemsize*layer", itemsize=demand.itemsize, layer=layer.value
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
