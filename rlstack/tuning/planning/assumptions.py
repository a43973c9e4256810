"""What a plan takes for granted where no data sheet says it: every one is printed, and can be overridden."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from rlstack.config.sequences import ROLLOUT_TOKEN_BYTES
from rlstack.errors import ConfigError


def _assume(default: float, unit: str, why: str) -> Any:
    return field(default=default, metadata={"unit": unit, "why": why})


@dataclass(frozen=True, slots=True, kw_only=True)
class Assumptions:
    """Numbers, each with its unit and its reason in the field's metadata; see `described`."""

    prompt_tokens: float = _assume(200, "tokens", "mean of a prompt with its template; measure your data")
    prompt_tokens_max: float = _assume(1024, "tokens", "of the longest prompt")
    answer_share: float = _assume(
        0.3, "of rollout.max_new_tokens", "mean answer; measure your model, it is what counts most"
    )
    answer_spread: float = _assume(0.6, "standard deviation / mean", "of a log-normal, cut at the limit")
    pair_yield: float = _assume(
        0.6, "of the prompts", "have rollouts of different reward; rlstack's tiny task has 0.8"
    )
    mfu: float = _assume(
        0.45,
        "of peak FLOPs",
        "training, alike for all layouts, communication and bubble counted apart; with them Llama 3 "
        "reached 0.38 to 0.43 (arXiv 2407.21783, Table 4)",
    )
    fp8_mfu: float = _assume(
        0.3, "of peak FLOPs", "training in FP8, of its peak: layers 1.3 times as fast; own assumption"
    )
    prefill_mfu: float = _assume(0.4, "of peak FLOPs", "engines reading prompts, and reward models")
    decode_mfu: float = _assume(0.5, "of peak FLOPs", "decoding, where the batch is too large for bandwidth")
    hbm_efficiency: float = _assume(0.6, "of HBM bandwidth", "decoding and optimiser; own assumption")
    nvlink_efficiency: float = _assume(0.75, "of NVLink bandwidth", "large collectives; own assumption")
    network_efficiency: float = _assume(0.75, "of network bandwidth", "large transfers; own assumption")
    decode_overhead_ms: float = _assume(4, "ms", "per decoding step: scheduling, sampling; own assumption")
    all_reduce_us: float = _assume(15, "us", "a small all-reduce between NVLink peers; own assumption")
    reward_ms: float = _assume(
        9.8,
        "ms",
        "of a worker's core for one math answer that no other repeats; measured with 640 answers "
        "on one core of a virtual machine",
    )
    node_cores: float = _assume(
        112, "cores", "of the controller's node, with reward.workers=auto; DGX H100 and H200 data sheets"
    )
    reward_model_billions: float = _assume(8, "10^9 parameters", "of a reward model; Athene-RM-8B")
    # The controller's own costs: the planner has them from here alone.
    controller_ns_per_token: float = _assume(
        350,
        "ns",
        "of the controller per sampled token: receiving, metrics, packing, rollouts.jsonl; measured over a "
        "whole loop with fake engines on one core of a virtual machine",
    )
    controller_us_per_rollout: float = _assume(
        5, "us", "of the controller per rollout: credit, metrics of rewards; measured likewise"
    )
    controller_ms_per_rank: float = _assume(
        2.6,
        "ms",
        "of the controller per rank and step: two calls, and collecting its spans; measured with 64 to 1,152 "
        "idle roles",
    )
    controller_ms: float = _assume(
        5, "ms", "of the controller per step, whatever its size; measured over 2,000 tiny steps"
    )
    controller_bytes_per_token: float = _assume(
        ROLLOUT_TOKEN_BYTES,
        "bytes",
        "of the controller per sampled token of a step that waits: id, logprob, text",
    )
    sync_latency_s: float = _assume(0.2, "s", "rendezvous, digests and probe of a sync; own assumption")
    margin: float = _assume(0.08, "of a GPU's memory", "left free: fragmentation; own assumption")
    context_gb: float = _assume(1.0, "GB", "CUDA context, libraries' workspaces; own assumption")
    nccl_gb: float = _assume(2.0, "GB", "communicators of a trainer rank; own assumption")
    engine_graphs_gb: float = _assume(1.5, "GB", "vLLM's CUDA graphs, compiled kernels, NCCL; own assumption")
    node_memory_gb: float = _assume(2000, "GB", "main memory of a node; DGX H100 and H200 data sheets")
    process_gb: float = _assume(6, "GB", "main memory of a policy rank: Python, CUDA, NCCL; own assumption")
    host_gb_per_s: float = _assume(40, "GB/s", "between a GPU and pinned memory: PCIe 5 x16; own assumption")
    engine_batched_tokens: float = _assume(
        16384, "tokens", "vLLM's max_num_batched_tokens of an offline engine on these GPUs"
    )

    def with_overrides(self, texts: Sequence[str]) -> Assumptions:
        """With each "name=number" put over them. Raises ConfigError naming the option."""
        return replace(self, **dict(_parsed(text) for text in texts))

    def described(self) -> list[tuple[str, float, str, str]]:
        """Name, value, unit and reason of each."""
        return [(f.name, getattr(self, f.name), f.metadata["unit"], f.metadata["why"]) for f in fields(self)]


def _parsed(text: str) -> tuple[str, float]:
    name, equals, number = text.partition("=")
    names = [f.name for f in fields(Assumptions)]
    if not equals or name not in names:
        raise ConfigError(f"--assume = {text!r}: NAME=NUMBER is accepted, where NAME is {' | '.join(names)}")
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    is_share = name.endswith(("_share", "_yield", "mfu", "_efficiency", "margin"))
    if not (0 <= value < math.inf) or (is_share and value > 1):
        accepted = "a number from 0 to 1" if is_share else "a number from 0"
        raise ConfigError(f"--assume = {text!r}: {accepted} is accepted for {name}")
    return name, value
