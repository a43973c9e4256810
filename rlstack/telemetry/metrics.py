"""Every metric of metrics.jsonl: its unit, how the values of several steps become one, and what it means.

A name that is not here is refused when it is logged, so that this list stays complete. `{task}` stands for
the name of any task, and so does any other word in braces for what it says.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import NamedTuple

Reduction = Callable[[Sequence[float]], float]


def _last(values: Sequence[float]) -> float:
    return values[-1]


SHARE = "of the step"  # a share of its time
TRAINING_SHARE = "of the training"  # of the time of the policy's ranks in the step
SPEED, FLOPS_SPEED = "tokens/s/rank", "TFLOP/s/rank"  # of one GPU, or of one process where there is none
PEAK_SHARE = "of the peak"  # of what a GPU's data sheet says of dense products in policy.precision
SAMPLED = "tokens/sampled"  # depends on when they arrive
SPANS = "spans"
_TIMINGS = ("s", "J", SPANS, SHARE, TRAINING_SHARE, SPEED, FLOPS_SPEED, PEAK_SHARE)


class Metric(NamedTuple):
    unit: str  # empty: a plain number
    reduction: Reduction  # over steps
    meaning: str


METRICS: dict[str, Metric] = {
    "step": Metric("", max, "optimiser steps taken, this one included: the version that it made"),
    "version_age": Metric("steps", statistics.fmean, "how far the rollouts' version trails the policy's"),
    "schedule/sync_interval": Metric("steps", _last, "s: from the sync before the step to the next one"),
    "reward/mean": Metric("", statistics.fmean, "mean reward of the step's scored rollouts"),
    "reward/mean/{task}": Metric("", statistics.fmean, "the same, of the task's rollouts"),
    "reward/length_normalised_mean": Metric("1/token", statistics.fmean, "mean of reward / length"),
    "reward/length_normalised_ratio": Metric("1/token", statistics.fmean, "mean reward / mean length"),
    "reward/margin": Metric("", statistics.fmean, "reward of a pair's chosen minus its rejected rollout"),
    "reward/timeouts": Metric("rollouts", sum, "without a reward: the time limit of the reward was up"),
    "reward/errors": Metric("rollouts", sum, "without a reward: scoring them failed"),
    "reward/missing": Metric("", statistics.fmean, "share of the rollouts that have no reward"),
    "reward/cut_off_penalty_mean": Metric(
        "", statistics.fmean, "what objective.cut_off=penalty adds to a reward, which reward/mean has not"
    ),
    "reward/truncated": Metric("rollouts", sum, "longer than reward.models[i].max_tokens, scored in part"),
    "pairs/formed": Metric("prompts", sum, "prompts with one rollout better than another"),
    "pairs/skipped": Metric("prompts", sum, "prompts that teach nothing: their rewards tie or are missing"),
    "pairs/formed/{task}": Metric("prompts", sum, "the same, of the task's prompts"),
    "pairs/skipped/{task}": Metric("prompts", sum, "the task's other prompts"),
    "pairs/yield": Metric("", statistics.fmean, "share of the prompts whose rewards differ"),
    "loss/total": Metric("", statistics.fmean, "loss of the step, divided by its examples"),
    "loss/dpo": Metric("", statistics.fmean, "DPO's part of it, a mean over each example's pairs"),
    "loss/grpo": Metric("", statistics.fmean, "GRPO's part of it, before objective.alpha"),
    "loss/nll": Metric("nats", statistics.fmean, "negative log-likelihood of the chosen, before nll_scale"),
    "loss/entropy": Metric("nats", statistics.fmean, "negative entropy of rollouts, before entropy_scale"),
    "dpo/margin": Metric("", statistics.fmean, "beta times the difference of the log-ratios of a pair"),
    "dpo/accuracy": Metric("", statistics.fmean, "share of the pairs with a positive margin"),
    "grpo/kl": Metric("nats", statistics.fmean, "k3 estimate of the KL to the reference, per token"),
    "policy/entropy": Metric(
        "nats", statistics.fmean, "entropy at the sampled tokens of rollouts trained on"
    ),
    "policy/chosen_logprob": Metric("nats", statistics.fmean, "logprob of the chosen rollouts, summed"),
    "policy/rejected_logprob": Metric("nats", statistics.fmean, "logprob of the rejected rollouts, summed"),
    "rollout/length_mean": Metric("tokens", statistics.fmean, "length, end token included"),
    "rollout/length_max": Metric("tokens", max, "length of the longest"),
    "rollout/length_correct_mean": Metric("tokens", statistics.fmean, "length of those of reward 1"),
    "rollout/length_incorrect_mean": Metric("tokens", statistics.fmean, "length of those of reward 0"),
    "rollout/length_chosen_mean": Metric("tokens", statistics.fmean, "length of the pairs' better rollout"),
    "rollout/length_rejected_mean": Metric("tokens", statistics.fmean, "length of the pairs' worse rollout"),
    "rollout/prompt_length_mean": Metric("tokens", statistics.fmean, "length of the prompts"),
    "rollout/entropy_estimate": Metric("nats", statistics.fmean, "minus the generator's mean logprob"),
    "rollout/cut_off": Metric("", statistics.fmean, "share ended by rollout.max_new_tokens"),
    "custom/{name}": Metric("", statistics.fmean, "reported by a loss or a loop of the user's own"),
    "grad_norm": Metric("", statistics.fmean, "global norm of the gradient before clipping"),
    "guard/skipped": Metric("steps", sum, "the loss or a gradient was not finite: the weights stayed"),
    "lr": Metric("", _last, "learning rate of the step"),
    "tokens/generated": Metric("tokens", sum, "sampled tokens"),
    "tokens/trained": Metric("tokens", sum, "tokens of rollouts that have a loss, prompts included"),
    SAMPLED: Metric("tokens", sum, "by the engines meanwhile: for steps to come, evaluations too"),
    "tokens/padding": Metric("tokens", sum, "further ones that the policy computed, for no loss"),
    "flops/train": Metric("FLOP", sum, "model FLOPs of forward and backward: rlstack/model/flops.py"),
    "flops/reference": Metric("FLOP", sum, "model FLOPs of the reference's pass, where it has one"),
    "packing/micro_batches": Metric("", statistics.fmean, "micro-batches of each data-parallel rank"),
    "packing/padding_share": Metric("", statistics.fmean, "tokens/padding of all that were computed"),
    "packing/flops_imbalance": Metric("", statistics.fmean, "most FLOPs of a data-parallel rank / mean"),
    "mismatch/logprob_abs_mean": Metric("nats", statistics.fmean, "generator against trainer, same version"),
    "mismatch/logprob_abs_max": Metric("nats", max, "the largest of these differences over tokens"),
    "drift/logprob_abs_mean": Metric("nats", statistics.fmean, "generator against the current policy"),
    "drift/logprob_abs_max": Metric("nats", max, "the largest of these differences over tokens"),
    "sync/version": Metric("steps", _last, "the version that the engines took over"),
    "sync/bytes": Metric("bytes", sum, "weights received by all engine ranks together"),
    "sync/pause_s": Metric("s", sum, "how long generation stood still: waiting for weights, and landing"),
    "sync/receive_s": Metric("s", sum, "until all weights had arrived and were verified"),
    "sync/wait_s": Metric("s", sum, "the part of it during which generation stood still"),
    "sync/land_s": Metric("s", sum, "from there into the engines' own tensors"),
    "sync/verified": Metric("", min, "every bucket arrived with the sender's digest"),
    "sync/probe_abs_mean": Metric("nats", max, "policy against engines on a fixed prompt, after landing"),
    "eval/accuracy": Metric("", _last, "held-out accuracy, mean over the tasks with verdicts"),
    "eval/accuracy_stderr": Metric("", _last, "its standard error over the seeds"),
    "eval/version": Metric("steps", _last, "the version that was evaluated"),
    "eval/selection": Metric("", _last, "what evaluation.selection compares versions by"),
    "eval/{task}/accuracy": Metric("", _last, "the task's held-out accuracy; tasks with verdicts only"),
    "eval/{task}/accuracy_stderr": Metric("", _last, "its standard error over the seeds"),
    "eval/{task}/majority": Metric("", _last, "accuracy of the box that most of a prompt's answers have"),
    "eval/{task}/pass_at_{k}": Metric("", _last, "chance that one of k answers is correct, unbiased"),
    "eval/{task}/reward": Metric("", _last, "mean reward of the answers that could be scored"),
    "eval/{task}/length_normalised_reward": Metric("1/token", _last, "mean of reward / length"),
    "eval/{task}/length_normalised_ratio": Metric("1/token", _last, "mean reward / mean length"),
    "eval/{task}/length_mean": Metric("tokens", _last, "length of the answers, end token included"),
    "eval/{task}/cut_off": Metric("", _last, "share of the answers ended by rollout.max_new_tokens"),
    "time/step_s": Metric("s", sum, "from the end of the step before to the end of this one"),
    "time/generate_wait_s": Metric("s", sum, "the trainer waited for rollouts"),
    "time/reward_s": Metric("s", sum, "scoring and credit"),
    "time/train_s": Metric("s", sum, "packing, forward, backward and the optimiser"),
    "time/sync_s": Metric("s", sum, "weight sync"),
    "time/evaluate_s": Metric("s", sum, "held-out evaluation"),
    "time/update_s": Metric("s", sum, "of time/train_s: forward, backward and optimiser on the ranks"),
    "time/reference_s": Metric("s", sum, "of time/train_s: the reference's pass on the ranks"),
    "time/sampling_s": Metric("s", sum, "the engines sampled meanwhile: a mean over them"),
    "throughput/train_tokens_per_s_per_rank": Metric(
        SPEED, statistics.fmean, "tokens/trained, by time/update_s"
    ),
    "throughput/train_tflops_per_rank": Metric(
        FLOPS_SPEED, statistics.fmean, "flops/train, by time/update_s"
    ),
    "throughput/mfu": Metric(
        PEAK_SHARE, statistics.fmean, "the same by the peak: model FLOPs utilisation, all waits included"
    ),
    "throughput/generated_tokens_per_s_per_rank": Metric(
        SPEED, statistics.fmean, "tokens/sampled, by time/sampling_s; only where the engines sampled"
    ),
    "pipeline/bubble_share": Metric(TRAINING_SHARE, statistics.fmean, "waited for other pipeline stages"),
    "busy/{roles}": Metric(SHARE, statistics.fmean, "at work: a mean over the roles of a kind"),
    "idle/{roles}": Metric(SHARE, statistics.fmean, "ahead of the trainer; what is left they waited"),
    "wait/{reason}": Metric(SHARE, statistics.fmean, "the policy's ranks waited for it"),
    "energy/{roles}": Metric("J", sum, "of their GPUs, all roles of a kind together"),
    "timeline/dropped_spans": Metric(
        SPANS, sum, "lost by a full buffer, so that the step's shares are wrong; there where it is above 0"
    ),
}


def metric_of(name: str) -> Metric | None:
    """The declaration that covers `name`: its own, or else that of a pattern; None if there is none."""
    if name in METRICS:
        return METRICS[name]
    return next((metric for pattern, metric in _patterns() if pattern.fullmatch(name)), None)


@cache
def _patterns() -> list[tuple[re.Pattern[str], Metric]]:
    return [
        (re.compile(".+".join(map(re.escape, re.split(r"\{\w+\}", name)))), metric)
        for name, metric in METRICS.items()
        if "{" in name
    ]


def is_timing(name: str) -> bool:
    """Whether the metric tells how long something took, and differs between two runs of the same results."""
    metric = metric_of(name)
    return metric is not None and (metric.unit in _TIMINGS or name == SAMPLED)


def over_steps(name: str, steps: Iterable[Mapping[str, float | None]]) -> float | None:
    """The metric's values of `steps` as one number, by its reduction; None if no step has one."""
    values = [value for step in steps if name in step and (value := step[name]) is not None]
    metric = metric_of(name)
    assert metric is not None, f"{name} is not declared"
    return metric.reduction(values) if values else None


def check_declared(names: Iterable[str]) -> None:
    """Raise ValueError for names that METRICS does not have."""
    if unknown := sorted({name for name in names if metric_of(name) is None}):
        raise ValueError(f"undeclared metrics {', '.join(unknown)}: add them to METRICS in {__name__}")
