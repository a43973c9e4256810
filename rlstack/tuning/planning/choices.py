"""A layout of the policy, one of the engines, and both together with what the cost model says of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rlstack.config.schema import Recompute
from rlstack.config.validate_rewards import num_reward_ranks
from rlstack.orchestration.layout_text import EngineLayout, TrainerLayout
from rlstack.orchestration.transfer_forecast import forecast
from rlstack.tuning.cost_model import predict
from rlstack.tuning.parts import Controller, Generation, Layout, Parts, Training
from rlstack.tuning.planning.demand import Demand
from rlstack.tuning.planning.derivation import Figure
from rlstack.tuning.planning.engine_memory import EngineMemory, engine_worker_memory
from rlstack.tuning.planning.policy_memory import RankMemory, policy_rank_memory
from rlstack.tuning.planning.serving_speed import generation, num_running, scoring, sync
from rlstack.tuning.planning.training_speed import training
from rlstack.tuning.prediction import Prediction
from rlstack.tuning.setup import Setup


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainerChoice:
    """A layout of the policy's ranks; `memory` is of the pipeline stage that has the most."""

    demand: Demand
    layout: Layout
    stage: int
    memory: RankMemory
    training: Training
    figures: list[Figure]

    @property
    def fits(self) -> bool:
        return self.memory.fits

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Trainer and engines together, and what the cost model says of them for each sync interval."""

    trainer: TrainerChoice
    engines: EngineChoice
    num_reward_gpus: int
    parts: Parts
    figures: list[Figure]  # of scoring and sync
    predictions: dict[int | None, Prediction]

    @property
    def num_gpus(self) -> int:
        return self.trainer.layout.num_ranks + self.engines.num_gpus + self.num_reward_gpus

    @property
    def fits(self) -> bool:
        return self.trainer.fits and self.engines.memory.fits


def trainer_choice(demand: Demand, layout: Layout) -> TrainerChoice:
    """What `layout` takes of its fullest stage's GPUs, and how fast it trains."""
    last = layout.pipeline_parallel - 1
    # Of equal stages in between, none has more than the first.
    candidates = {0, last} if layout.pipeline_layers is None else range(last + 1)
    stages = {stage: policy_rank_memory(demand, layout, stage=stage) for stage in candidates}
    stage, memory = max(stages.items(), key=lambda item: item[1].total.value)
    made, figures = training(demand, layout)
    return TrainerChoice(
        demand=demand, layout=layout, stage=stage, memory=memory, training=made, figures=figures
    )


def engine_choice(demand: Demand, layout: EngineLayout) -> EngineChoice:
    """What `layout` takes of an engine's GPU, and how fast it samples."""
    memory = engine_worker_memory(demand, tensor_parallel=layout.tensor_parallel)
    made, figures = generation(demand, layout, memory)
    return EngineChoice(demand=demand, layout=layout, memory=memory, generation=made, figures=figures)


def combine(trainer: TrainerChoice, engines: EngineChoice, *, intervals: Sequence[int | None]) -> Choice:
    """Put together, with the sync between the two layouts, and ask the cost model."""
    demand = trainer.demand
    num_rewards = num_reward_ranks(demand.config)
    num_gpus = trainer.layout.num_ranks + engines.num_gpus
    busiest = _busiest_bytes(demand, trainer.layout, engines.layout)
    synced, of_sync = sync(demand, engines.memory, busiest_bytes=busiest, num_gpus=num_gpus)
    scored, of_scoring = scoring(demand)
    parts = Parts(
        workload=demand.workload,
        generation=engines.generation,
        training=trainer.training,
        scoring=scored,
        sync=synced,
        controller=Controller(fixed_s=demand.assumptions.controller_ms / 1000),
    )
    choice = Choice(
        trainer=trainer,
        engines=engines,
        num_reward_gpus=num_rewards,
        parts=parts,
        figures=[*of_scoring, *of_sync],
        predictions={},
    )
    return replace(choice, predictions={s: predict(parts, planned_setup(choice, s)) for s in intervals})


def planned_setup(choice: Choice, interval: int | None) -> Setup:
    """What the cost model is asked."""
    demand, memory = choice.trainer.demand, choice.engines.memory
    return replace(
        demand.setup(interval),
        engines=choice.engines.layout.num_engines,
        layout=choice.trainer.layout,
        max_num_seqs=num_running(demand, memory),
    )


def _busiest_bytes(demand: Demand, trainer: Layout, engines: EngineLayout) -> int:
    layout = TrainerLayout(
        tensor_parallel=trainer.tensor_parallel,
        pipeline_parallel=trainer.pipeline_parallel,
        data_parallel=trainer.replicas,
        virtual_pipeline=trainer.virtual_pipeline,
        pipeline_layers=trainer.pipeline_layers,
    )
    bucket_bytes = demand.config.transfer.bucket_mib << 20
    figures = forecast(
        demand.architecture,
        layout,
        engines,
        itemsize=demand.itemsize,
        bucket_bytes=bucket_bytes,
        gb_per_s={"": 1},
    )
    return round(figures.bounds[""].transfer_s * 1e9)
