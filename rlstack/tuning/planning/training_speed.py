"""Training as a part of the cost model, from data sheets and assumptions.

What ranks send each other is counted as if nothing else went on meanwhile.
"""

from __future__ import annotations

from rlstack.config.schema import Recompute
from rlstack.model.flops import ModelFlops
from rlstack.tuning.parts import Layout, Training
from rlstack.tuning.planning.activation_memory import recomputed_share
from rlstack.tuning.planning.activations import Layers
from rlstack.tuning.planning.demand import Demand
from rlstack.tuning.planning.derivation import Figure, derive
from rlstack.tuning.planning.links import link_of, nvlink
from rlstack.tuning.planning.shards import buffer_elements
from rlstack.tuning.planning.workspace import saves_logprobs

# What the backward pass computes once more: nothing of the output layer, which is not among the layers.
_AGAIN = {
    Recompute.none: "",
    Recompute.selective: " + 6*layers*ffn*hidden",
    Recompute.full: " + again*(forward - 2*hidden*vocab)",
}


def training(demand: Demand, layout: Layout) -> tuple[Training, list[Figure]]:
    """Of a layout: FLOPs over the ranks' speed, the collectives, the optimiser's pass through memory."""
    figures = _flops(demand, layout)
    forward, step = figures
    rank_flops = {"peak": demand.peak_flops, "mfu": demand.training_mfu}
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
    return made, [*figures, per_token, reference, *efficiency, *exchange]


def forward_flops(demand: Demand) -> Figure:
    """Of a forward pass, per token."""
    workload, flops = demand.workload, ModelFlops.of(demand.architecture)
    return derive(
        "forward",
        "FLOP/token",
        "linear + attention*sequence",
        linear=flops.linear,
        attention=flops.attention,
        sequence=workload.prompt_tokens + workload.mean_answer_tokens,
    )


def _flops(demand: Demand, layout: Layout) -> list[Figure]:
    """Per token: of a forward pass, and of a forward and a backward pass with what is computed once more."""
    a, forward = demand.architecture, forward_flops(demand)
    logits = "" if saves_logprobs(demand, layout, Layers.transformer_engine) else " + 2*hidden*vocab"
    step = derive(
        "forward and backward",
        "FLOP/token",
        f"3*forward{logits}{_AGAIN[demand.config.policy.recompute]}",
        forward=forward.value,
        **_again(demand, layout),
        layers=a.num_layers,
        ffn=a.ffn_size,
        hidden=a.hidden_size,
        vocab=a.vocab_size,
    )
    return [forward, step]


def _again(demand: Demand, layout: Layout) -> dict[str, float]:
    """The share of the layers that are computed once more as a whole, where there are some."""
    is_full = demand.config.policy.recompute is Recompute.full
    return {"again": recomputed_share(demand, layout)} if is_full else {}


def _efficiency(demand: Demand, layout: Layout, per_token: Figure) -> list[Figure]:
    """Of splitting the work over the ranks: what they send each other, and parts that are not even."""
    tp, pp = layout.tensor_parallel, layout.pipeline_parallel
    sent = [
        figure
        for axis, figure in (
            (tp, _tensor_collectives(demand, layout)),
            (layout.context_parallel, _context_exchange(demand, layout)),
            (pp, _pipeline_messages(demand, layout)),
        )
        if axis > 1
    ]
    examples = derive(
        "examples per place",
        "",
        "examples/(ceil(examples/dp)*dp)",
        examples=max(1.0, demand.examples_per_step),
        dp=layout.data_parallel,
    )
    num_layers = demand.architecture.num_layers
    stages = derive(
        "layers per place",
        "",
        "layers/(pp*largest)",
        layers=num_layers,
        pp=pp,
        largest=max(sum(layout.chunk_sizes(num_layers, stage=stage)) for stage in range(pp)),
    )
    efficiency = derive(
        "efficiency",
        "",
        "examples*stages*compute/(compute + sent)",
        examples=examples.value,
        stages=stages.value,
        compute=per_token.value / (tp * pp * layout.context_parallel),
        sent=sum(figure.value for figure in sent),
    )
    return [*sent, examples, stages, efficiency]


def _tensor_collectives(demand: Demand, layout: Layout) -> Figure:
    """Two all-reduces forward and two backward in each layer (Shoeybi et al. 2019, arXiv 1909.08053, figure
    4), and what of them is done again; a ring sends each byte 2 (tp - 1) / tp times."""
    again = {Recompute.none: 0, Recompute.selective: 1, Recompute.full: 2}
    return derive(
        "tensor-parallel collectives",
        "s/token",
        "layers/(pp*cp)*(4 + again)*2*(tp - 1)/tp*hidden*itemsize/(nvlink*nvlink_efficiency)",
        layers=demand.architecture.num_layers,
        pp=layout.pipeline_parallel,
        cp=layout.context_parallel,
        again=again[demand.config.policy.recompute] * recomputed_share(demand, layout),
        tp=layout.tensor_parallel,
        hidden=demand.architecture.hidden_size,
        itemsize=demand.itemsize,
        nvlink=nvlink(demand),
        nvlink_efficiency=demand.assumptions.nvlink_efficiency,
    )


def _context_exchange(demand: Demand, layout: Layout) -> Figure:
    """Keys and values go round the context-parallel ranks, and in the backward pass their gradients too."""
    a = demand.architecture
    link, efficiency = link_of(demand, num_gpus=layout.tensor_parallel * layout.context_parallel)
    return derive(
        "keys and values exchanged",
        "s/token",
        "layers/pp*(3 + again)*(cp - 1)/cp*2*kv_heads*head_dim*itemsize/tp/(link*link_efficiency)",
        layers=a.num_layers,
        pp=layout.pipeline_parallel,
        again=_again(demand, layout).get("again", 0),
        cp=layout.context_parallel,
        kv_heads=a.num_kv_heads,
        head_dim=a.head_dim,
        itemsize=demand.itemsize,
        tp=layout.tensor_parallel,
        link=link,
        link_efficiency=efficiency,
    )


def _pipeline_messages(demand: Demand, layout: Layout) -> Figure:
    """Hidden states to the next chunk, and their gradients to the one before."""
    link, efficiency = link_of(demand, num_gpus=layout.num_ranks)
    return derive(
        "hidden states between stages",
        "s/token",
        "2*vp*hidden*itemsize/(cp*sp)/(link*link_efficiency)",
        vp=layout.virtual_pipeline,
        hidden=demand.architecture.hidden_size,
        itemsize=demand.itemsize,
        cp=layout.context_parallel,
        sp=layout.tensor_parallel if demand.config.policy.sequence_parallel else 1,
        link=link,
        link_efficiency=efficiency,
    )


def _exchange(demand: Demand, layout: Layout) -> list[Figure]:
    """Once per step: fp32 gradients reduced and weights gathered over the ranks that hold the same weights;
    the optimiser."""
    buffer = buffer_elements(demand.architecture, layout, stage=0).value
    num_near = layout.tensor_parallel * layout.replicas  # ranks from the group's first to its last
    link, efficiency = link_of(demand, num_gpus=num_near)
    exchange = derive(
        "gradients and weights exchanged",
        "s",
        "buffer*(4 + itemsize)*(replicas - 1)/replicas/(link*link_efficiency)",
        buffer=buffer,
        itemsize=demand.itemsize,
        replicas=layout.replicas,
        link=link,
        link_efficiency=efficiency,
    )
    optimiser = derive(
        # Of its share: gradient, weight and moments read and written; of all: cleared, checked and normed.
        "optimiser's pass",
        "s",
        "(30*buffer/replicas + 12*buffer)/(hbm*hbm_efficiency)",
        buffer=buffer,
        replicas=layout.replicas,
        hbm=demand.gpu.hbm_tb_per_s * 1e12,
        hbm_efficiency=demand.assumptions.hbm_efficiency,
    )
    return [exchange, optimiser]
