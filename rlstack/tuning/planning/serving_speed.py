"""Generation, scoring and sync as parts of the cost model, from data sheets and assumptions."""

from __future__ import annotations

from rlstack.config.reward_names import used_models
from rlstack.config.schedule_words import AUTO
from rlstack.model.flops import ModelFlops
from rlstack.orchestration.layout_text import EngineLayout
from rlstack.tuning.parts import Generation, Scoring, Sync
from rlstack.tuning.planning.demand import Demand
from rlstack.tuning.planning.derivation import Figure, derive
from rlstack.tuning.planning.engine_memory import EngineMemory
from rlstack.tuning.planning.links import link_of


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
    matrices = ModelFlops.of(a).matrices
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
        peak=demand.engine_peak_flops,
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
        peak=demand.engine_peak_flops,
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
    workers = demand.config.reward.workers
    num_workers = int(assumed.node_cores if workers == AUTO else workers)
    kinds = [Scoring(s_per_rollout=figures[0].value, workers=num_workers)]
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
                peak=demand.gpu.peak.bf16 * 1e12,
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
