"""Parts of the cost model from data sheets and assumptions, where tuning.fit would take them from measurements."""

from __future__ import annotations

from dataclasses import dataclass

from rlstack.config.reward_names import used_models
from rlstack.orchestration.layout_text import EngineLayout
from rlstack.tuning.parts import Controller, Generation, Layout, Parts, Scoring, Sync, Training
from rlstack.tuning.planning.demand import Demand
from rlstack.tuning.planning.derivation import Figure, derive
from rlstack.tuning.planning.engine_memory import EngineMemory
from rlstack.tuning.planning.shards import buffer_elements, matrix_parameters, policy_parameters
from rlstack.tuning.planning.workspace import saves_logprobs

_LINK_UNIT = 10**9  # bytes: GB/s


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """`parts` for the cost model, and the figures that they were put together from."""

    parts: Parts
    figures: list[Figure]


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
    again = "" if saves_logprobs(demand, layout) else " + 2*hidden*vocab"
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
    """Of splitting the work over the ranks: tensor-parallel collectives, examples that do not come out even."""
    a, tp, pp = demand.architecture, layout.tensor_parallel, layout.pipeline_parallel
    # Two all-reduces forward and two backward in each layer (Shoeybi et al. 2019, arXiv 1909.08053, figure 4);
    # a ring sends each byte 2 (tp - 1) / tp times.
    collectives = derive(
        "tensor-parallel collectives",
        "s/token",
        "layers/pp*4*2*(tp - 1)/tp*hidden*itemsize/(nvlink*nvlink_efficiency)",
        layers=a.num_layers,
        pp=pp,
        tp=tp,
        hidden=a.hidden_size,
        itemsize=demand.itemsize,
        nvlink=demand.gpu.nvlink_gb_per_s * _LINK_UNIT,
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
    """Once per step: gradients reduced in fp32 and weights gathered over data-parallel ranks; the optimiser."""
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


def link_of(demand: Demand, *, num_gpus: int) -> tuple[float, float]:
    """Bytes per second and direction of a GPU in a group of that many, and the share of it to be had."""
    gpu, assumed = demand.gpu, demand.assumptions
    if num_gpus <= gpu.gpus_per_node:
        return gpu.nvlink_gb_per_s * _LINK_UNIT, assumed.nvlink_efficiency
    return gpu.network_gb_per_s * _LINK_UNIT, assumed.network_efficiency


def generation(
    demand: Demand, engines: EngineLayout, memory: EngineMemory
) -> tuple[Generation, list[Figure]]:
    """Of one engine: a step of decoding reads all weights, and each sequence's keys and values."""
    a, assumed, tp = demand.architecture, demand.assumptions, engines.tensor_parallel
    workload = demand.workload
    bandwidth = {"hbm": demand.gpu.hbm_tb_per_s * 1e12, "hbm_efficiency": assumed.hbm_efficiency}
    weights = derive(
        "weights read",
        "s",
        "weights/(hbm*hbm_efficiency)",
        weights=memory.weights.value,
        **bandwidth,
    )
    decode = derive(
        "decoding step",
        "s",
        "overhead_ms/1000 + weights_read + all_reduces*all_reduce_us/1000000",
        overhead_ms=assumed.decode_overhead_ms,
        weights_read=weights.value,
        all_reduces=2 * a.num_layers if tp > 1 else 0,
        all_reduce_us=assumed.all_reduce_us,
    )
    matrices = matrix_parameters(a).value
    # Where the batch makes the products slower than reading the weights, the excess is the sequences'.
    per_sequence = derive(
        "decoding step per sequence",
        "s",
        "kv_per_token*(prompt + answer/2)/(hbm*hbm_efficiency)"
        " + max(0, 2*matrices/(tp*peak*decode_mfu) - weights_read/batch)",
        kv_per_token=memory.kv_bytes_per_token.value,
        prompt=workload.prompt_tokens,
        answer=workload.mean_answer_tokens,
        matrices=matrices,
        tp=tp,
        peak=demand.peak_flops,
        decode_mfu=assumed.decode_mfu,
        weights_read=weights.value,
        batch=num_running(demand, memory),
        **bandwidth,
    )
    prefill = derive(
        # The rollouts of a prompt share it: vLLM's prefix cache.
        "prefill",
        "s/token/rollout",
        "2*matrices/(tp*peak*prefill_mfu)/n",
        matrices=matrices,
        tp=tp,
        peak=demand.peak_flops,
        prefill_mfu=assumed.prefill_mfu,
        n=demand.config.rollout.n,
    )
    made = Generation(
        decode_s=decode.value,
        decode_s_per_sequence=per_sequence.value,
        prefill_s_per_token=prefill.value,
    )
    return made, [weights, decode, per_sequence, prefill]


def num_running(demand: Demand, memory: EngineMemory) -> int:
    """Sequences that an engine decodes together: rollout.max_num_seqs, if its cache has room."""
    mean = demand.workload.prompt_tokens + demand.workload.mean_answer_tokens
    return max(1, min(demand.config.rollout.max_num_seqs, int(memory.kv_tokens / mean)))


def scoring(demand: Demand) -> tuple[Scoring, list[Figure]]:
    """Of the slowest kind of reward: answers are verified on CPUs, reward models have GPUs of their own."""
    assumed, workload = demand.assumptions, demand.workload
    figures = [derive("verification", "s/rollout", "reward_ms/1000", reward_ms=assumed.reward_ms)]
    kinds = [Scoring(s_per_rollout=figures[0].value, workers=demand.config.reward.workers)]
    for model in used_models(demand.config):
        figures.append(
            derive(
                f"reward model {model.name}",
                "s/rollout",
                "2*billions*10**9*(prompt + answer)/(tp*peak*prefill_mfu)",
                billions=assumed.reward_model_billions,
                prompt=workload.prompt_tokens,
                answer=workload.mean_answer_tokens,
                tp=model.tensor_parallel,
                peak=demand.peak_flops,
                prefill_mfu=assumed.prefill_mfu,
            )
        )
        kinds.append(Scoring(s_per_rollout=figures[-1].value, workers=model.num_actors))
    return max(kinds, key=lambda kind: kind.s_per_rollout / kind.workers), figures


def sync(
    demand: Demand, memory: EngineMemory, *, busiest_bytes: int, num_gpus: int
) -> tuple[Sync, list[Figure]]:
    """Of a sync in which the busiest rank sends or receives `busiest_bytes`."""
    link, efficiency = link_of(demand, num_gpus=num_gpus)
    transfer = derive(
        "transfer",
        "s",
        "latency + busiest_bytes/(link*link_efficiency)",
        latency=demand.assumptions.sync_latency_s,
        busiest_bytes=busiest_bytes,
        link=link,
        link_efficiency=efficiency,
    )
    landing = derive(
        "landing",
        "s",
        "2*weights/(hbm*hbm_efficiency)",
        weights=memory.weights.value,
        hbm=demand.gpu.hbm_tb_per_s * 1e12,
        hbm_efficiency=demand.assumptions.hbm_efficiency,
    )
    made = Sync(
        num_bytes=busiest_bytes,
        bytes_per_s=link * efficiency,
        latency_s=demand.assumptions.sync_latency_s,
        pause_s=landing.value,
    )
    return made, [transfer, landing]


def controller(demand: Demand) -> Controller:
    return Controller(fixed_s=demand.assumptions.controller_ms / 1000)
