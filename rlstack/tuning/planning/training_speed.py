"""Training as a part of the cost model, from data sheets and assumptions.

What pipeline stages send each other is left out: milliseconds where a step takes seconds.
"""

from __future__ import annotations

from rlstack.tuning.parts import Layout, Training
from rlstack.tuning.planning.activations import Layers
from rlstack.tuning.planning.demand import Demand
from rlstack.tuning.planning.derivation import Figure, derive
from rlstack.tuning.planning.links import link_of, nvlink
from rlstack.tuning.planning.shards import buffer_elements, matrix_parameters, policy_parameters
from rlstack.tuning.planning.workspace import saves_logprobs


def training(demand: Demand, layout: Layout) -> tuple[Training, list[Figure]]:
    """Of a layout: FLOPs over the ranks' speed, the collectives, the optimiser's pass through memory."""
    a, assumed = demand.architecture, demand.assumptions
    matrices = matrix_parameters(a)
    workload = demand.workload
    shared = {
        "matrices": matrices.value,
        "layers": a.num_layers,
        "heads": a.num_heads,
        "head_dim": a.head_dim,
        "sequence": workload.prompt_tokens + workload.mean_answer_tokens,
        "hidden": a.hidden_size,
        "vocab": a.vocab_size,
    }
    # 2 FLOPs per weight forward and 4 backward; causal attention sees half of the sequence on average.
    forward = derive("forward", "FLOP/token", "2*matrices + 2*layers*heads*head_dim*sequence", **shared)
    again = "" if saves_logprobs(demand, layout, Layers.transformer_engine) else " + 2*hidden*vocab"
    step = derive("forward and backward", "FLOP/token", f"3*forward{again}", forward=forward.value, **shared)
    rank_flops = {"peak": demand.peak_flops, "mfu": assumed.mfu}
    per_token = derive("training", "s/token/rank", "step/(peak*mfu)", step=step.value, **rank_flops)
    reference = derive("reference", "s/token/rank", "forward/(peak*mfu)", forward=forward.value, **rank_flops)
    efficiency = _efficiency(demand, layout, per_token)
    exchange = _exchange(demand, layout)
    made = Training(
        s_per_token=per_token.value,
        fixed_s=sum(figure.value for figure in exchange),
        efficiency=efficiency[-1].value,
        reference_s_per_token=reference.value,
    )
    return made, [matrices, forward, step, per_token, reference, *efficiency, *exchange]


def _efficiency(demand: Demand, layout: Layout, per_token: Figure) -> list[Figure]:
    """Of splitting the work over the ranks: collectives, and examples that do not come out even."""
    a, tp, pp = demand.architecture, layout.tensor_parallel, layout.pipeline_parallel
    # Two all-reduces forward and two backward in each layer (Shoeybi et al. 2019, arXiv 1909.08053,
    # figure 4); a ring sends each byte 2 (tp - 1) / tp times.
    collectives = derive(
        "tensor-parallel collectives",
        "s/token",
        "layers/pp*4*2*(tp - 1)/tp*hidden*itemsize/(nvlink*nvlink_efficiency)",
        layers=a.num_layers,
        pp=pp,
        tp=tp,
        hidden=a.hidden_size,
        itemsize=demand.itemsize,
        nvlink=nvlink(demand),
        nvlink_efficiency=demand.assumptions.nvlink_efficiency,
    )
    balance = derive(
        "examples per place",
        "",
        "examples/(ceil(examples/dp)*dp)",
        examples=max(1.0, demand.examples_per_step),
        dp=layout.data_parallel,
    )
    efficiency = derive(
        "efficiency",
        "",
        "balance*compute/(compute + collectives)",
        balance=balance.value,
        compute=per_token.value / (tp * pp),
        collectives=collectives.value,
    )
    return [collectives, balance, efficiency]


def _exchange(demand: Demand, layout: Layout) -> list[Figure]:
    """Once per step: fp32 gradients reduced and weights gathered over data-parallel ranks; the optimiser."""
    counts = policy_parameters(demand.architecture, layout, stage=0)
    buffer = buffer_elements(counts[-1].value, layout).value
    num_near = layout.tensor_parallel * layout.data_parallel  # ranks from the group's first to its last
    link, efficiency = link_of(demand, num_gpus=num_near)
    exchange = derive(
        "gradients and weights exchanged",
        "s",
        "buffer*(4 + itemsize)*(dp - 1)/dp/(link*link_efficiency)",
        buffer=buffer,
        itemsize=demand.itemsize,
        dp=layout.data_parallel,
        link=link,
        link_efficiency=efficiency,
    )
    optimiser = derive(
        # Of its share: gradient, weight and moments read and written; of all: cleared, checked and normed.
        "optimiser's pass",
        "s",
        "(30*buffer/dp + 12*buffer)/(hbm*hbm_efficiency)",
        buffer=buffer,
        dp=layout.data_parallel,
        hbm=demand.gpu.hbm_tb_per_s * 1e12,
        hbm_efficiency=demand.assumptions.hbm_efficiency,
    )
    return [exchange, optimiser]
