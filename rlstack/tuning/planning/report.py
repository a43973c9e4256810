"""A plan in full: the best choice, what it beats, what to paste; and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rlstack.orchestration.layout_text import EngineLayout
from rlstack.tuning.parts import Layout
from rlstack.tuning.planning.choices import colocated, engine_choice, trainer_choice
from rlstack.tuning.planning.combination import Choice, combine
from rlstack.tuning.planning.demand import Demand, searched
from rlstack.tuning.planning.derivation import Figure
from rlstack.tuning.planning.planner import Budget, choose
from rlstack.tuning.prediction import POLICY, engine_name


@dataclass(frozen=True, slots=True, kw_only=True)
class IntervalRow:
    """One sync interval on the recommended layout; seconds per step, shares of the run's time."""

    sync_interval: int | None
    step_s: float
    generate_s: float  # of one engine
    train_s: float
    sync_s: float  # of one sync
    policy_idle_share: float
    engine_idle_share: float
    tokens_generated_per_s: float
    tokens_trained_per_s: float
    gpu_hours_per_1000_steps: float
    price_per_1000_steps: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """`choices`: one for each split of the GPUs, best first; `configured`: the config's own layout."""

    model: str
    demand: Demand
    choices: list[Choice]
    configured: Choice
    price_per_gpu_hour: float | None

    @property
    def best(self) -> Choice:
        """With predictions for all of the intervals."""
        return self.choices[0]

    @property
    def rows(self) -> list[IntervalRow]:
        return [self._row(interval) for interval in self.demand.intervals]

    @property
    def settings(self) -> list[str]:
        """The best choice as settings to give to `rlstack train`."""
        layout, engines = self.best.trainer.layout, self.best.engines
        policy, asked = self.best.trainer.demand.config.policy, self.demand.config
        settings: dict[str, object] = {
            "policy.tensor_parallel": layout.tensor_parallel,
            "policy.pipeline_parallel": layout.pipeline_parallel,
            "policy.data_parallel": layout.data_parallel,
            "policy.sequence_parallel": str(layout.tensor_parallel > 1).lower(),
            "rollout.engines": engines.layout.num_engines,
            "rollout.tensor_parallel": engines.layout.tensor_parallel,
        }
        # What a config need not say is said only where it is another.
        rare: dict[str, tuple[object, object]] = {
            "policy.context_parallel": (layout.context_parallel, asked.policy.context_parallel),
            "policy.virtual_pipeline": (layout.virtual_pipeline, asked.policy.virtual_pipeline),
            "policy.pipeline_layers": ("null", asked.policy.pipeline_layers or "null"),
            "policy.recompute": (policy.recompute.value, asked.policy.recompute.value),
            "rollout.gpu_memory_fraction": (
                engines.memory.gpu_memory_fraction,
                asked.rollout.gpu_memory_fraction,
            ),
        }
        settings |= {key: chosen for key, (chosen, own) in rare.items() if chosen != own}
        return [f"{key}={value}" for key, value in settings.items()]

    def _row(self, interval: int | None) -> IntervalRow:
        prediction = self.best.predictions[interval]
        roles, steps = prediction.roles, prediction.num_steps
        gpu_hours = prediction.step_s * 1000 * self.best.num_gpus / 3600
        return IntervalRow(
            sync_interval=interval,
            step_s=prediction.step_s,
            generate_s=roles[engine_name(0)].busy_s / steps,
            train_s=roles[POLICY].busy_s / steps,
            sync_s=self.best.parts.sync.seconds,
            policy_idle_share=roles[POLICY].idle_share,
            engine_idle_share=prediction.engine_idle_share,
            tokens_generated_per_s=prediction.tokens_generated_per_s,
            tokens_trained_per_s=prediction.tokens_trained_per_s,
            gpu_hours_per_1000_steps=gpu_hours,
            price_per_1000_steps=None
            if self.price_per_gpu_hour is None
            else gpu_hours * self.price_per_gpu_hour,
        )

    def as_json(self) -> dict[str, Any]:
        """Everything that is shown, and every figure with its formula."""
        return {
            "model": self.model,
            "precision": self.demand.config.policy.precision.value,
            "gpu": asdict(self.demand.gpu),
            "assumptions": asdict(self.demand.assumptions),
            "settings": self.settings,
            "intervals": [asdict(row) for row in self.rows],
            "choices": [_choice_as_json(choice) for choice in self.choices],
            "configured": _choice_as_json(self.configured),
        }


def make_plan(model: str, demand: Demand, budget: Budget, *, price_per_gpu_hour: float | None) -> Plan:
    """Search the layouts and predict the best one for every interval."""
    first, *others = choose(searched(demand), budget)
    best = combine(first.trainer, first.engines, intervals=[demand.own_interval, *demand.intervals])
    return Plan(
        model=model,
        demand=demand,
        choices=[best, *others],
        configured=configured(demand),
        price_per_gpu_hour=price_per_gpu_hour,
    )


def configured(demand: Demand) -> Choice:
    """The config's own layout, whether or not it fits."""
    rollout, layout = demand.config.rollout, Layout.of(demand.config.policy)
    engines = EngineLayout(num_engines=rollout.engines, tensor_parallel=rollout.tensor_parallel)
    trainer = trainer_choice(demand, layout)
    pair = colocated(trainer, engines) if demand.colocated else (trainer, engine_choice(demand, engines))
    return combine(*pair, intervals=[demand.own_interval])


def _choice_as_json(choice: Choice) -> dict[str, Any]:
    trainer, engines = choice.trainer, choice.engines
    interval = trainer.demand.own_interval
    return {
        "trainer": asdict(trainer.layout) | {"gpus": trainer.layout.num_ranks},
        "engines": asdict(engines.layout) | {"gpus": engines.num_gpus},
        "reward_gpus": choice.num_reward_gpus,
        "fits": choice.fits,
        "sync_interval": interval,
        "step_s": choice.predictions[interval].step_s,
        "policy_memory": {
            "stage": trainer.stage,
            "fits": trainer.memory.fits,
            "figures": _figures([*trainer.memory.parts, trainer.memory.total, trainer.memory.limit]),
            "of": _figures(trainer.memory.details),
        },
        "host_memory": {
            "fits": trainer.host.fits,
            "figures": _figures([*trainer.host.parts, trainer.host.total, trainer.host.limit]),
        },
        "controller_memory": {"figures": _figures([choice.waiting])},
        "engine_memory": {
            "fits": engines.memory.fits,
            "gpu_memory_fraction": engines.memory.gpu_memory_fraction,
            "kv_tokens": engines.memory.kv_tokens,
            "figures": _figures(engines.memory.parts),
            "of": _figures(engines.memory.details),
        },
        "time": _figures([*trainer.figures, *engines.figures, *choice.figures]),
    }


def _figures(figures: Sequence[Figure]) -> list[dict[str, Any]]:
    return [asdict(figure) for figure in figures]
