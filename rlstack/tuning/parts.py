"""What a step of a job costs, part by part: measured by tuning.fit, or assumed from hardware data.

Every time is that of the part running alone. What happens when parts run side by side is the simulation's
business, which is why `Sharing` says who shares what.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from rlstack.config.parallel import stage_layers
from rlstack.config.schema import Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How the policy is spread over its ranks, and what they take at once."""

    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    context_parallel: int = 1
    data_parallel: int = 1
    virtual_pipeline: int = 1  # chunks of layers per stage
    pipeline_layers: tuple[int, ...] | None = None  # of each chunk, in the model's order; None: equal numbers
    micro_batch_tokens: int = 8192

    @classmethod
    def of(cls, policy: Policy) -> Layout:
        """The layout that settings ask for."""
        return cls(
            tensor_parallel=policy.tensor_parallel,
            pipeline_parallel=policy.pipeline_parallel,
            context_parallel=policy.context_parallel,
            data_parallel=policy.data_parallel,
            virtual_pipeline=policy.virtual_pipeline,
            pipeline_layers=None if policy.pipeline_layers is None else tuple(policy.pipeline_layers),
            micro_batch_tokens=policy.micro_batch_tokens,
        )

    @property
    def num_ranks(self) -> int:
        return self.tensor_parallel * self.pipeline_parallel * self.replicas

    @property
    def replicas(self) -> int:
        """Ranks that hold the same weights, and share the optimiser out."""
        return self.context_parallel * self.data_parallel

    def chunk_sizes(self, num_layers: int, *, stage: int) -> list[int]:
        """Layers of each chunk of a pipeline stage."""
        num_chunks = self.pipeline_parallel * self.virtual_pipeline
        if self.pipeline_layers is None and num_layers % num_chunks == 0:
            return [num_layers // num_chunks] * self.virtual_pipeline
        stages = stage_layers(
            num_layers,
            num_stages=self.pipeline_parallel,
            chunks_per_stage=self.virtual_pipeline,
            sizes=self.pipeline_layers,
        )
        return [len(chunk) for chunk in stages[stage]]

    def num_micro_batches(self, num_tokens: float) -> int:
        """Of each data-parallel rank in a step of `num_tokens` trained tokens."""
        number = max(1, math.ceil(num_tokens / self.data_parallel / self.micro_batch_tokens))
        multiple = self.pipeline_parallel if self.virtual_pipeline > 1 else 1
        return math.ceil(number / multiple) * multiple

    def bubble_share(self, num_tokens: float) -> float:
        """Share of a step in which a pipeline stage has nothing to do.

        (p - 1) / v micro-batches' time beside that of m: of the interleaved 1F1B schedule with p stages of v
        chunks and m micro-batches (Narayanan et al. 2021, arXiv 2104.04473, sections 2.2.1 and 2.2.2).
        """
        filling = (self.pipeline_parallel - 1) / self.virtual_pipeline
        return filling / (self.num_micro_batches(num_tokens) + filling)


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What a prompt brings with it."""

    prompt_tokens: float
    answer_tokens: tuple[float, ...]  # lengths of rollouts, each as likely as the others
    trained_tokens_per_prompt: float  # in micro-batches, prompts included; a mean over all prompts

    @property
    def mean_answer_tokens(self) -> float:
        return sum(self.answer_tokens) / len(self.answer_tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """One engine, of however many ranks.

    With r sequences running, one decoding step takes decode_s + r * decode_s_per_sequence.
    """

    decode_s: float
    decode_s_per_sequence: float
    prefill_s_per_token: float = 0.0  # of each rollout's prompt
    call_s: float = 0.0  # of one call for any number of rollouts
    cores: float = 1.0  # of the shared ones, while it works


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """One optimiser step of T tokens over `Layout`'s ranks.

    It takes fixed_s + T * s_per_token / (ranks * efficiency * (1 - bubble share)); a pass of the reference
    before it adds the same with the reference's figures.
    """

    s_per_token: float  # forward and backward on a single rank
    fixed_s: float = 0.0  # optimiser, gradient exchange, start of the passes
    efficiency: float = 1.0  # of splitting the work over the ranks, bubble apart
    reference_s_per_token: float = 0.0  # forward only
    reference_fixed_s: float = 0.0
    cores_per_rank: float = 1.0  # of the shared ones, while the rank works

    def seconds(self, num_tokens: float, layout: Layout) -> float:
        """Wall-clock of one optimiser step."""
        return self.fixed_s + self._spread(num_tokens, layout) * self.s_per_token

    def reference_seconds(self, num_tokens: float, layout: Layout) -> float:
        """Wall-clock of the reference's pass over a step's tokens."""
        return self.reference_fixed_s + self._spread(num_tokens, layout) * self.reference_s_per_token

    def _spread(self, num_tokens: float, layout: Layout) -> float:
        """Tokens that one rank would work through in the time that the layout takes for `num_tokens`."""
        busy_ranks = layout.num_ranks * self.efficiency * (1 - layout.bubble_share(num_tokens))
        return num_tokens / busy_ranks


@dataclass(frozen=True, slots=True, kw_only=True)
class Scoring:
    """The rewards; `workers` take rollouts side by side."""

    s_per_rollout: float
    fixed_s: float = 0.0  # of one step's rollouts
    workers: int = 1
    cores: float = 1.0  # of the shared ones, for each worker at work

    def seconds(self, num_rollouts: float) -> float:
        """Of one step's rollouts."""
        return self.fixed_s + num_rollouts * self.s_per_rollout / self.workers


@dataclass(frozen=True, slots=True, kw_only=True)
class Sync:
    """One version from the policy to all engines, side by side."""

    num_bytes: float  # that the busiest rank sends or receives
    bytes_per_s: float | None  # None: bytes cost nothing that could be told from the latency
    latency_s: float  # of everything else: rendezvous, digests, checks
    pause_s: float = 0.0  # the part in which generation stands still even if begun ahead (landing)
    cores: float = 1.0  # of the shared ones, meanwhile

    @property
    def transfer_s(self) -> float:
        """Until the weights have arrived."""
        return self.latency_s + (self.num_bytes / self.bytes_per_s if self.bytes_per_s else 0.0)

    @property
    def seconds(self) -> float:
        """All of it."""
        return self.transfer_s + self.pause_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Controller:
    """The driver's own work in a step, during which the policy has nothing to do."""

    fixed_s: float = 0.0
    s_per_rollout: float = 0.0
    cores: float = 1.0

    def seconds(self, num_rollouts: float) -> float:
        return self.fixed_s + num_rollouts * self.s_per_rollout


@dataclass(frozen=True, slots=True, kw_only=True)
class Sharing:
    """Who shares what.

    cores: None: every role has accelerators of its own. Otherwise what all roles run on together; where
        they ask for more, all slow down alike.
    slowdown: by how much a core is slower for each other core that is busy (caches, memory bandwidth,
        hardware threads): with k others busy, work takes 1 + k * slowdown times as long.
    """

    cores: float | None = None
    slowdown: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """All of a job."""

    workload: Workload
    generation: Generation
    training: Training
    scoring: Scoring
    sync: Sync
    controller: Controller = Controller()
    sharing: Sharing = Sharing()
    evaluation_s: float = 0.0  # of one held-out evaluation, during which all else stands still
    start_up_s: float = 0.0  # before the first step, evaluation of version 0 not included
