"""A layout of the policy and one of the engines together, with what the cost model says of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rlstack.config.validate_rewards import num_reward_ranks
from rlstack.orchestration.layout_text import EngineLayout, TrainerLayout
from rlstack.orchestration.transfer_forecast import least_transfer_bytes
from rlstack.tuning.cost_model import predict
from rlstack.tuning.parts import Controller, Layout, Parts
from rlstack.tuning.planning.choices import EngineChoice, TrainerChoice
from rlstack.tuning.planning.demand import Demand
from rlstack.tuning.planning.derivation import Figure, derive
from rlstack.tuning.planning.engine_memory import EngineMemory
from rlstack.tuning.planning.serving_speed import num_running, scoring, sync
from rlstack.tuning.prediction import Prediction
from rlstack.tuning.setup import Setup


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Trainer and engines together, and what the cost model says of them for each sync interval."""

    trainer: TrainerChoice
    engines: EngineChoice
    num_reward_gpus: int
    parts: Parts
    figures: list[Figure]  # of scoring, sync and controller
    waiting: Figure  # bytes of the controller's memory
    predictions: dict[int | None, Prediction]

    @property
    def num_gpus(self) -> int:
        return _num_gpus(self.trainer, self.engines) + self.num_reward_gpus

    @property
    def fits(self) -> bool:
        return self.trainer.fits and self.engines.fits


def combine(trainer: TrainerChoice, engines: EngineChoice, *, intervals: Sequence[int | None]) -> Choice:
    """Put together, with the sync between the two layouts, and ask the cost model."""
    demand = trainer.demand
    num_rewards = num_reward_ranks(demand.config)
    num_gpus = _num_gpus(trainer, engines)
    shifts = _shifts(demand, engines.memory) if demand.colocated else []
    busiest = _busiest_bytes(demand, trainer.layout, engines.layout)
    synced, of_sync = sync(demand, engines.memory, busiest_bytes=busiest, num_gpus=num_gpus)
    scored, of_scoring = scoring(demand)
    of_controller = _controller(demand, num_ranks=num_gpus)
    parts = Parts(
        workload=demand.workload,
        generation=engines.generation,
        training=trainer.training,
        scoring=scored,
        sync=synced,
        controller=Controller(fixed_s=sum(figure.value for figure in [of_controller, *shifts])),
    )
    choice = Choice(
        trainer=trainer,
        engines=engines,
        num_reward_gpus=num_rewards,
        parts=parts,
        figures=[*of_scoring, *of_sync, of_controller, *shifts],
        waiting=_waiting(demand),
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


def _num_gpus(trainer: TrainerChoice, engines: EngineChoice) -> int:
    """Of both."""
    policy = trainer.layout.num_ranks
    return max(policy, engines.num_gpus) if trainer.demand.colocated else policy + engines.num_gpus


def _controller(demand: Demand, *, num_ranks: int) -> Figure:
    """Of a step, while the policy has nothing to do. Every rank is called twice, and its spans collected."""
    assumed, setup = demand.assumptions, demand.setup(demand.own_interval)
    return derive(
        "controller",
        "s",
        "(ms + ranks*ms_per_rank)/1000 + rollouts*(us_per_rollout/10**6 + answer*ns_per_token/10**9)",
        ms=assumed.controller_ms,
        ranks=num_ranks,
        ms_per_rank=assumed.controller_ms_per_rank,
        rollouts=setup.rollouts_per_step,
        us_per_rollout=assumed.controller_us_per_rollout,
        answer=demand.workload.mean_answer_tokens,
        ns_per_token=assumed.controller_ns_per_token,
    )


def _waiting(demand: Demand) -> Figure:
    """Of rollouts that wait to be trained on, with those of the step in hand, in the controller's memory."""
    setup = demand.setup(demand.own_interval)
    return derive(
        "rollouts that wait",
        "B",
        "(steps + 1)*rollouts*answer*bytes_per_token",
        steps=min(setup.max_steps_ahead, setup.sync_interval or setup.max_steps_ahead),
        rollouts=setup.rollouts_per_step,
        answer=demand.workload.mean_answer_tokens,
        bytes_per_token=demand.assumptions.controller_bytes_per_token,
    )


def _shifts(demand: Demand, memory: EngineMemory) -> list[Figure]:
    """Of a step: an engine's weights go to the host and come back, once for all that is sampled together."""
    setup = demand.setup(demand.own_interval)
    return [
        derive(
            "engines going to sleep and waking",
            "s",
            "2*weights/(host_gb_per_s*gb)/steps",
            weights=memory.weights.value,
            host_gb_per_s=demand.assumptions.host_gb_per_s,
            gb=10**9,
            steps=min(setup.max_steps_ahead, setup.sync_interval or setup.max_steps_ahead),
        )
    ]


def _busiest_bytes(demand: Demand, trainer: Layout, engines: EngineLayout) -> int:
    layout = TrainerLayout(
        tensor_parallel=trainer.tensor_parallel,
        pipeline_parallel=trainer.pipeline_parallel,
        data_parallel=trainer.replicas,
        virtual_pipeline=trainer.virtual_pipeline,
        pipeline_layers=trainer.pipeline_layers,
    )
    return least_transfer_bytes(
        demand.architecture,
        layout,
        engines,
        itemsize=demand.itemsize,
        bucket_bytes=demand.config.transfer.bucket_mib << 20,
    )
