"""What a run asks of any layout: the model, the settings, and how many tokens a step has."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import NormalDist

from rlstack.config.precision import rollout_precision
from rlstack.config.schedule_words import AUTO
from rlstack.config.schema import (
    Fp8Recipe,
    Fusions,
    ObjectiveName,
    Placement,
    Precision,
    Recompute,
    RunConfig,
)
from rlstack.credit.assign import rollouts_per_example
from rlstack.model.architecture import Architecture
from rlstack.orchestration.schedule import WITH_GENERATOR
from rlstack.tuning.parts import Layout, Workload
from rlstack.tuning.planning.assumptions import Assumptions
from rlstack.tuning.planning.hardware import Gpu
from rlstack.tuning.setup import Setup

_NUM_LENGTHS = 64  # quantiles that stand for the distribution of answers
_SHORTEST_RUN = 48  # steps that are simulated at least, and intervals
_NUM_INTERVALS = 3


@dataclass(frozen=True, kw_only=True)
class Demand:
    """Of the run that is planned, on GPUs of one kind.

    A search reads the same figures for thousands of layouts: each is computed once for a demand.
    """

    config: RunConfig
    architecture: Architecture
    gpu: Gpu
    assumptions: Assumptions
    intervals: tuple[int | None, ...]  # that the plan compares; memory must do for each

    @property
    def itemsize(self) -> int:
        """Bytes of a weight of the policy, and of an activation."""
        return 4 if self.config.policy.precision is Precision.fp32 else 2

    @property
    def rollout_precision(self) -> Precision:
        """Of the engines."""
        return rollout_precision(self.config)

    @property
    def engine_itemsize(self) -> int:
        """Bytes of a weight as it comes to an engine, and of a key or a value; FP8 is what becomes of it."""
        return 4 if self.rollout_precision is Precision.fp32 else 2

    @cached_property
    def fp8(self) -> Fp8Recipe | None:
        """How the policy's layers compute in FP8, if they do."""
        policy = self.config.policy
        return policy.fp8.recipe if policy.precision is Precision.fp8 else None

    @property
    def fused(self) -> bool:
        """True if the policy's layers use fused kernels, given Transformer Engine and Triton."""
        return self.config.policy.fusions is Fusions.auto

    @property
    def colocated(self) -> bool:
        """Whether policy and engines share their GPUs."""
        return self.config.cluster.placement is Placement.colocated

    @property
    def peak_flops(self) -> float:
        """Of a GPU that trains."""
        return self.gpu.tflops(self.config.policy.precision) * 1e12

    @property
    def training_mfu(self) -> float:
        """Share of `peak_flops` that a rank reaches while it computes."""
        return self.assumptions.mfu if self.fp8 is None else self.assumptions.fp8_mfu

    @property
    def training_flops(self) -> float:
        """Of a GPU that trains, per second, while it computes."""
        return self.peak_flops * self.training_mfu

    @property
    def engine_peak_flops(self) -> float:
        return self.gpu.tflops(self.rollout_precision) * 1e12

    @property
    def memory_bytes(self) -> float:
        return self.gpu.memory_gb * 1e9

    @cached_property
    def keeps_reference(self) -> bool:
        """Whether the ranks hold a copy of the weights for it: see policy/reference.py."""
        needs = self.setup(self.own_interval).needs_reference
        return needs and any(
            self.setup(s).reference_interval != 1 for s in (*self.intervals, self.own_interval)
        )

    @property
    def own_interval(self) -> int | None:
        """The config's s; what auto starts from."""
        interval = self.config.schedule.sync_interval
        return self.config.schedule.adaptive.start if interval == AUTO else interval  # type: ignore[return-value]

    @property
    def rollouts_per_example(self) -> int:
        """Rollouts that have to share a micro-batch."""
        return rollouts_per_example(self.config.objective, n=self.config.rollout.n)

    @property
    def examples_per_step(self) -> float:
        """A mean: prompts whose rollouts tie give no pair."""
        prompts = self.config.batch.prompts_per_step
        if self.config.objective.name is ObjectiveName.grpo:
            return prompts * self.config.rollout.n
        return prompts * self.assumptions.pair_yield

    @property
    def longest_sequence(self) -> int:
        """Tokens of the longest prompt with the longest answer."""
        return math.ceil(self.assumptions.prompt_tokens_max) + self.config.rollout.max_new_tokens

    @cached_property
    def largest_micro_batch(self) -> int:
        """Tokens: an example is never split."""
        longest = self.rollouts_per_example * self.longest_sequence
        return max(self.config.policy.micro_batch_tokens, longest)

    def rank_tokens(self, layout: Layout) -> int:
        """Of the largest micro-batch: context-parallel ranks share its tokens."""
        return math.ceil(self.largest_micro_batch / layout.context_parallel)

    def most_micro_batches(self, layout: Layout) -> int:
        """Of a data-parallel rank, where all prompts give examples of the greatest length."""
        per_prompt = self.config.rollout.n if self.rollouts_per_example == 1 else self.rollouts_per_example
        return layout.num_micro_batches(
            self.config.batch.prompts_per_step * per_prompt * self.longest_sequence
        )

    @cached_property
    def workload(self) -> Workload:
        """Answers are log-normal, cut at rollout.max_new_tokens."""
        prompt, answers = self.assumptions.prompt_tokens, self._answer_tokens()
        mean = sum(answers) / len(answers)
        per_prompt = self.examples_per_step * self.rollouts_per_example / self.config.batch.prompts_per_step
        return Workload(
            prompt_tokens=prompt,
            answer_tokens=answers,
            trained_tokens_per_prompt=per_prompt * (prompt + mean),
        )

    @cached_property
    def trained_tokens_per_step(self) -> float:
        return self.config.batch.prompts_per_step * self.workload.trained_tokens_per_prompt

    def setup(self, interval: int | None) -> Setup:
        """The run at sync interval `interval`, long enough for a steady state, with no evaluation."""
        if interval not in self._setups:
            self._setups[interval] = self._make_setup(interval)
        return self._setups[interval]

    @cached_property
    def _setups(self) -> dict[int | None, Setup]:
        return {}

    def _make_setup(self, interval: int | None) -> Setup:
        schedule = self.config.schedule
        reference = schedule.reference_sync
        every = interval if reference == WITH_GENERATOR else reference if isinstance(reference, int) else None
        known = replace(self.config, schedule=replace(schedule, sync_interval=interval))
        return replace(
            Setup.of(known),
            num_steps=max(_SHORTEST_RUN, _NUM_INTERVALS * (interval or 1)),
            evaluate_every=None,
            reference_interval=every,
        )

    def recomputing(self, recompute: Recompute) -> Demand:
        """The same run with another policy.recompute."""
        return self._by_recompute[recompute]

    @cached_property
    def _by_recompute(self) -> dict[Recompute, Demand]:
        policies = {recompute: replace(self.config.policy, recompute=recompute) for recompute in Recompute}
        return {
            recompute: replace(self, config=replace(self.config, policy=policy))
            for recompute, policy in policies.items()
        }

    def _answer_tokens(self) -> tuple[float, ...]:
        limit, spread = self.config.rollout.max_new_tokens, self.assumptions.answer_spread
        variance = math.log(1 + spread**2)
        normal = NormalDist(
            math.log(limit * self.assumptions.answer_share) - variance / 2, math.sqrt(variance) or 1e-9
        )
        quantiles: Sequence[float] = [(i + 0.5) / _NUM_LENGTHS for i in range(_NUM_LENGTHS)]
        return tuple(min(limit, max(1.0, math.exp(normal.inv_cdf(q)))) for q in quantiles)


def searched(demand: Demand) -> Demand:
    """As it is asked where the layout is to be chosen.

    Sequence parallelism is on wherever there is tensor parallelism: it costs nothing and saves activations
    (Korthikanti et al. 2022, arXiv 2205.05198, section 4.2.2).
    """
    policy = replace(demand.config.policy, sequence_parallel=True, pipeline_layers=None)
    return replace(demand, config=replace(demand.config, policy=policy))
