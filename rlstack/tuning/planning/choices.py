"""A layout of the policy, and one of the engines: what each takes and how fast it is."""

from __future__ import annotations

from dataclasses import dataclass

from rlstack.config.schema import Recompute
from rlstack.orchestration.layout_text import EngineLayout
from rlstack.tuning.parts import Generation, Layout, Training
from rlstack.tuning.planning.demand import Demand
from rlstack.tuning.planning.derivation import Figure
from rlstack.tuning.planning.engine_memory import EngineMemory, engine_worker_memory
from rlstack.tuning.planning.host_memory import HostMemory, host_memory
from rlstack.tuning.planning.policy_memory import RankMemory, policy_rank_memory
from rlstack.tuning.planning.serving_speed import generation, num_running
from rlstack.tuning.planning.shards import policy_parameters
from rlstack.tuning.planning.training_speed import forward_flops, training


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainerChoice:
    """A layout of the policy's ranks; `memory` is of the pipeline stage that has the most."""

    demand: Demand
    layout: Layout
    stage: int
    memory: RankMemory
    host: HostMemory
    training: Training
    figures: list[Figure]

    @property
    def fits(self) -> bool:
        return self.memory.fits and self.host.fits

    @property
    def complexity(self) -> tuple[int, ...]:
        """The less, the less there is to go wrong: recomputation, chunks, stages, tensor parallelism."""
        recompute = list(Recompute).index(self.demand.config.policy.recompute)
        layout = self.layout
        return recompute, layout.virtual_pipeline, layout.pipeline_parallel, layout.tensor_parallel

    @property
    def step_s(self) -> float:
        """Reference and training, without anything to wait for."""
        tokens = self.demand.trained_tokens_per_step
        seconds = self.training.seconds(tokens, self.layout)
        if self.demand.setup(self.demand.own_interval).needs_reference:
            seconds += self.training.reference_seconds(tokens, self.layout)
        return seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineChoice:
    """A layout of the engines."""

    demand: Demand
    layout: EngineLayout
    memory: EngineMemory
    generation: Generation
    figures: list[Figure]

    @property
    def fits(self) -> bool:
        return self.memory.fits

    @property
    def num_gpus(self) -> int:
        return self.layout.num_engines * self.layout.tensor_parallel

    @property
    def step_s(self) -> float:
        """Of a step's rollouts: decoding with a full batch, and at an interval's end its longest answer."""
        setup = self.demand.setup(self.demand.own_interval)
        steps = min(setup.max_steps_ahead, setup.sync_interval or setup.max_steps_ahead)
        rollouts = setup.rollouts_per_step * steps / self.layout.num_engines
        running = min(num_running(self.demand, self.memory), rollouts)
        full_s = self.generation.decode_s + running * self.generation.decode_s_per_sequence
        workload = self.demand.workload
        decoding_s = rollouts * workload.mean_answer_tokens / running * full_s
        return (decoding_s + max(workload.answer_tokens) * self.generation.decode_s) / steps


def trainer_choice(demand: Demand, layout: Layout, asleep: EngineMemory | None = None) -> TrainerChoice:
    """What `layout` takes of its fullest stage's GPUs and of their node, and how fast it trains.

    asleep: of the engine's worker that shares a GPU with a rank.
    """
    last = layout.pipeline_parallel - 1
    # Of equal stages in between, none has more than the first.
    candidates = {0, last} if layout.pipeline_layers is None else range(last + 1)
    stages = {stage: policy_rank_memory(demand, layout, stage=stage, asleep=asleep) for stage in candidates}
    stage, memory = max(stages.items(), key=lambda item: item[1].total.value)
    parameters = policy_parameters(demand.architecture, layout, stage=stage)[-1].value
    host = host_memory(
        demand, layout, parameters=parameters, asleep=None if asleep is None else asleep.weights.value
    )
    made, figures = training(demand, layout)
    return TrainerChoice(
        demand=demand,
        layout=layout,
        stage=stage,
        memory=memory,
        host=host,
        training=made,
        figures=figures,
    )


def least_step_s(demand: Demand, num_gpus: int) -> float:
    """A lower bound on `TrainerChoice.step_s` of all layouts of `num_gpus`.

    Nothing is computed twice, nothing is sent, and every GPU has an equal share of the tokens.
    """
    forward = forward_flops(demand).value
    num_passes = 3 + demand.setup(demand.own_interval).needs_reference
    return demand.trained_tokens_per_step * num_passes * forward / (num_gpus * demand.training_flops)


def engine_choice(demand: Demand, layout: EngineLayout, *, policy_bytes: float | None = None) -> EngineChoice:
    """What `layout` takes of an engine's GPU, and how fast it samples.

    policy_bytes: what a rank of the policy keeps of the same GPU.
    """
    memory = engine_worker_memory(demand, tensor_parallel=layout.tensor_parallel, policy_bytes=policy_bytes)
    made, figures = generation(demand, layout, memory)
    return EngineChoice(demand=demand, layout=layout, memory=memory, generation=made, figures=figures)


def colocated(trainer: TrainerChoice, layout: EngineLayout) -> tuple[TrainerChoice, EngineChoice]:
    """`trainer` and engines of `layout` on the same GPUs, each with what it leaves to the other."""
    kept = sum(figure.value for figure in trainer.memory.staying)
    engines = engine_choice(trainer.demand, layout, policy_bytes=kept)
    return trainer_choice(trainer.demand, trainer.layout, engines.memory), engines
