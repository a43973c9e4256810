"""The values that each single setting accepts."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """Numbers from `low` to `high`; an end that is open is not itself accepted."""

    low: float
    high: float = math.inf
    low_open: bool = False
    high_open: bool = False

    def __contains__(self, value: float) -> bool:
        """False for NaN and for infinity, whatever the ends are."""
        above = value > self.low if self.low_open else value >= self.low
        below = value < self.high if self.high_open else value <= self.high
        return above and below and math.isfinite(value)

    def __str__(self) -> str:
        low = f"more than {self.low:g}" if self.low_open else f"at least {self.low:g}"
        if self.high == math.inf:
            return low
        return f"{low} and {'less than' if self.high_open else 'at most'} {self.high:g}"


POSITIVE = Range(low=0, low_open=True)
NOT_NEGATIVE = Range(low=0)
ONE_OR_MORE = Range(low=1)
MOMENTUM = Range(low=0, high=1, high_open=True)
SHARE = Range(low=0, high=1)
PROBABILITY = Range(low=0, high=1, low_open=True)
SHARE = Range(low=0, high=1, high_open=True)
FRACTION = Range(low=0, high=1, low_open=True, high_open=True)

COLDEST = 0.01  # vLLM samples no colder, and takes what is close to 0 for greedy

# By path. A setting that is null is not checked: null is accepted wherever the schema lets it through. Nor is
# a word in place of a number, which is for validate.py.
RANGES: dict[str, Range] = {
    "run.seed": NOT_NEGATIVE,
    "schedule.num_steps": ONE_OR_MORE,
    "schedule.sync_interval": ONE_OR_MORE,
    "schedule.adaptive.start": ONE_OR_MORE,
    "schedule.adaptive.min": ONE_OR_MORE,
    "schedule.adaptive.max": ONE_OR_MORE,
    "schedule.adaptive.max_drift": POSITIVE,
    "schedule.adaptive.max_sync_share": FRACTION,
    "schedule.lag": NOT_NEGATIVE,
    "schedule.evaluate_every": ONE_OR_MORE,
    "schedule.save_every": ONE_OR_MORE,
    "policy.tensor_parallel": ONE_OR_MORE,
    "policy.pipeline_parallel": ONE_OR_MORE,
    "policy.context_parallel": ONE_OR_MORE,
    "policy.data_parallel": ONE_OR_MORE,
    "policy.virtual_pipeline": ONE_OR_MORE,
    "policy.recompute_layers": ONE_OR_MORE,
    "policy.overlap_bucket_size": ONE_OR_MORE,
    "policy.fp8.margin": NOT_NEGATIVE,
    "policy.fp8.amax_history_len": ONE_OR_MORE,
    "policy.fp8.bf16_layers_at_start": NOT_NEGATIVE,
    "policy.fp8.bf16_layers_at_end": NOT_NEGATIVE,
    "policy.logprob_save_gib": NOT_NEGATIVE,
    "policy.micro_batch_tokens": ONE_OR_MORE,
    "policy.start_timeout_s": POSITIVE,
    "policy.step_timeout_s": POSITIVE,
    "optimizer.lr": POSITIVE,
    "optimizer.warmup_steps": NOT_NEGATIVE,
    "optimizer.adam_beta1": MOMENTUM,
    "optimizer.adam_beta2": MOMENTUM,
    "optimizer.adam_eps": POSITIVE,
    "optimizer.weight_decay": NOT_NEGATIVE,
    "optimizer.clip_grad": NOT_NEGATIVE,
    "optimizer.max_skipped_steps": ONE_OR_MORE,
    "rollout.engines": ONE_OR_MORE,
    "rollout.tensor_parallel": ONE_OR_MORE,
    "rollout.n": Range(low=2),  # a pair and an advantage both compare rollouts of one prompt
    "rollout.temperature": Range(low=COLDEST),
    "rollout.top_p": PROBABILITY,
    "rollout.max_new_tokens": ONE_OR_MORE,
    "rollout.max_num_seqs": ONE_OR_MORE,
    "rollout.max_steps_ahead": ONE_OR_MORE,
    "rollout.max_ahead_gib": POSITIVE,
    "rollout.kv_cache_gib": POSITIVE,
    "rollout.gpu_memory_fraction": FRACTION,
    "rollout.start_timeout_s": POSITIVE,
    "rollout.generate_timeout_s": POSITIVE,
    "objective.beta": POSITIVE,
    "objective.kl_scale": NOT_NEGATIVE,
    "objective.alpha": NOT_NEGATIVE,
    "objective.nll_scale": NOT_NEGATIVE,
    "objective.entropy_scale": NOT_NEGATIVE,
    "objective.clip_ratio_low": PROBABILITY,
    "objective.clip_ratio_high": POSITIVE,
    "objective.tis_cap": POSITIVE,
    "objective.cut_off_penalty": POSITIVE,
    "objective.cut_off_buffer_tokens": ONE_OR_MORE,
    "batch.prompts_per_step": ONE_OR_MORE,
    "data.max_unverifiable": SHARE,
    "reward.workers": ONE_OR_MORE,
    "reward.timeout_s": POSITIVE,
    "reward.plugin_timeout_s": POSITIVE,
    "reward.plugin_start_timeout_s": POSITIVE,
    "evaluation.num_prompts": ONE_OR_MORE,
    "evaluation.n": ONE_OR_MORE,
    "evaluation.temperature": NOT_NEGATIVE,  # 0 = greedy
    "evaluation.top_p": PROBABILITY,
    "transfer.bucket_mib": ONE_OR_MORE,
    "transfer.timeout_s": POSITIVE,
    "alarms.no_signal.window": ONE_OR_MORE,
    "alarms.no_signal.lr_factor": FRACTION,
    "alarms.no_signal.min_prompts": ONE_OR_MORE,
    "alarms.reward_errors.window": ONE_OR_MORE,
    "alarms.reward_errors.lr_factor": FRACTION,
    "alarms.reward_errors.max_share": SHARE,
    "alarms.cut_off.window": ONE_OR_MORE,
    "alarms.cut_off.lr_factor": FRACTION,
    "alarms.cut_off.max_share": SHARE,
    "alarms.length_collapse.window": ONE_OR_MORE,
    "alarms.length_collapse.lr_factor": FRACTION,
    "alarms.length_collapse.fraction": FRACTION,
    "alarms.entropy_collapse.window": ONE_OR_MORE,
    "alarms.entropy_collapse.lr_factor": FRACTION,
    "alarms.entropy_collapse.fraction": FRACTION,
    "alarms.entropy_collapse.floor": POSITIVE,
    "alarms.divergence.window": ONE_OR_MORE,
    "alarms.divergence.lr_factor": FRACTION,
    "alarms.divergence.reward_drop": POSITIVE,
    "alarms.divergence.max_grad_norm": POSITIVE,
    "alarms.divergence.max_mismatch": POSITIVE,
    "alarms.divergence.max_drift": POSITIVE,
    "checkpoint.keep_last": ONE_OR_MORE,
    "checkpoint.keep_best": NOT_NEGATIVE,
    "checkpoint.timeout_s": POSITIVE,
    "checkpoint.interrupt_timeout_s": POSITIVE,
    "recovery.max_restarts": NOT_NEGATIVE,
    "recovery.window_s": POSITIVE,
    "cluster.ranks_per_core": ONE_OR_MORE,
    "cluster.placement_timeout_s": POSITIVE,
    "cluster.object_store_mib": Range(low=80),  # Ray refuses less than 75 MB
    "cluster.shutdown_timeout_s": POSITIVE,
    "telemetry.rollouts_max_gib": POSITIVE,
    "telemetry.peak_tflops": POSITIVE,
}

# What to write instead, where the range alone does not say it.
REMEDIES = {
    "schedule.save_every": "null saves nothing",
    "schedule.sync_interval": "1 is online, null is offline, auto adapts",
    "schedule.num_steps": "give the number of optimiser steps",
    "reward.workers": "auto is one for each core of this machine, and one of each plug-in",
    "rollout.n": "a pair needs two rollouts of a prompt",
}
