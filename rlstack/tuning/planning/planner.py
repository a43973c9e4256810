"""The search: which split of the GPUs and which layouts fit, and which of them has the quickest steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rlstack.config.schema import Recompute
from rlstack.config.validate_rewards import num_reward_ranks
from rlstack.errors import ConfigError
from rlstack.tuning.parts import Layout
from rlstack.tuning.planning.choices import (
    EngineChoice,
    TrainerChoice,
    colocated,
    engine_choice,
    least_step_s,
    trainer_choice,
)
from rlstack.tuning.planning.combination import Choice, combine
from rlstack.tuning.planning.demand import Demand
from rlstack.tuning.planning.layouts import engine_layouts, splits, trainer_layouts, virtual_pipelines

_MOST_GPUS = 1024  # to which the least number that fits is looked for
ALIKE = 0.03  # of the time of a step: less than the assumptions can tell apart
_CONTEXT_SIZES = (1, 2, 4, 8)
_NUM_CANDIDATES = 6  # splits for which the cost model is asked


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """The GPUs: of all, or of one side, or of both; what is None is to be chosen."""

    num_gpus: int | None = None
    trainer_gpus: int | None = None
    engine_gpus: int | None = None

    def splits(self, *, reward_gpus: int, gpus_per_node: int) -> Iterator[tuple[int, int]]:
        """GPUs of trainer and engines. Raises ConfigError if they are not said, or do not add up."""
        trainer, engines = self.trainer_gpus, self.engine_gpus
        if trainer is not None and engines is not None:
            if self.num_gpus not in (None, trainer + engines + reward_gpus):
                raise ConfigError(
                    f"--gpus = {self.num_gpus}: --trainer-gpus = {trainer}, --engine-gpus = {engines} and "
                    f"{reward_gpus} of reward models are {trainer + engines + reward_gpus}; leave one out"
                )
            yield trainer, engines
            return
        if self.num_gpus is None:
            raise ConfigError("--gpus is not set; give it, or --trainer-gpus and --engine-gpus")
        rest = self.num_gpus - reward_gpus
        if trainer is not None or engines is not None:
            yield (trainer, rest - trainer) if trainer is not None else (rest - (engines or 0), engines or 0)
            return
        yield from splits(rest, gpus_per_node=gpus_per_node)

    def shared(self, *, reward_gpus: int) -> int:
        """GPUs of trainer and engines together. Raises ConfigError if they are said apart, or not at all."""
        if self.trainer_gpus is not None or self.engine_gpus is not None:
            raise ConfigError(
                "--trainer-gpus and --engine-gpus are for cluster.placement = split; give --gpus alone"
            )
        if self.num_gpus is None:
            raise ConfigError("--gpus is not set; give the number that policy and engines share")
        return self.num_gpus - reward_gpus


def choose(demand: Demand, budget: Budget) -> list[Choice]:
    """The best layouts of the most promising splits, with a prediction for the config's s, quickest first.

    Raises ConfigError with the least number of GPUs that would do if nothing fits.
    """
    pairs = _shared_pairs(demand, budget) if demand.colocated else _split_pairs(demand, budget)
    if not pairs:
        raise ConfigError(_too_few(demand, budget))
    found = [combine(*pair, intervals=[demand.own_interval]) for pair in pairs[:_NUM_CANDIDATES]]
    return sorted(found, key=lambda choice: choice.predictions[demand.own_interval].step_s)


def _split_pairs(demand: Demand, budget: Budget) -> list[tuple[TrainerChoice, EngineChoice]]:
    """The best of each split of the GPUs, quickest first: _NUM_CANDIDATES of them, or a few more.

    What is overlapped takes about as long as the slower side. Splits are searched in the order of the least
    time that they can take, until no other can be among the quickest.
    """
    rewards, per_node = num_reward_ranks(demand.config), demand.gpu.gpus_per_node
    bounded: list[tuple[float, int, int, EngineChoice]] = []
    for place, split in enumerate(budget.splits(reward_gpus=rewards, gpus_per_node=per_node)):
        num_trainer, num_engine = split
        if engines := fitting_engines(demand, num_engine):
            quickest = min(engines, key=lambda c: c.step_s)
            least_s = max(least_step_s(demand, num_trainer), quickest.step_s)
            bounded.append((least_s, place, num_trainer, quickest))
    found: list[tuple[float, int, TrainerChoice, EngineChoice]] = []
    for least_s, place, num_trainer, engine in sorted(bounded, key=lambda item: item[:2]):
        if len(found) >= _NUM_CANDIDATES and least_s > found[_NUM_CANDIDATES - 1][0]:
            break
        if trainers := fitting_trainers(demand, num_trainer):
            trainer = _simplest(trainers, engine_s=engine.step_s)
            found.append((max(trainer.step_s, engine.step_s), place, trainer, engine))
            found.sort(key=lambda item: item[:2])
    return [(trainer, engine) for _, _, trainer, engine in found]


def _shared_pairs(demand: Demand, budget: Budget) -> list[tuple[TrainerChoice, EngineChoice]]:
    """Those that fit side by side on the same GPUs, all of which both of them take, quickest first."""
    num_gpus = budget.shared(reward_gpus=num_reward_ranks(demand.config))
    layouts = list(
        engine_layouts(demand.architecture, num_gpus=num_gpus, gpus_per_node=demand.gpu.gpus_per_node)
    )
    trainers = fitting_trainers(demand, num_gpus)
    pairs = [colocated(trainer, layout) for trainer in trainers for layout in layouts]
    fitting = [pair for pair in pairs if all(choice.fits for choice in pair)]
    return sorted(fitting, key=lambda pair: pair[0].step_s + pair[1].step_s)


def _simplest(choices: Sequence[TrainerChoice], *, engine_s: float) -> TrainerChoice:
    """Of those with which a step is about as quick as with the quickest, with engines that take `engine_s`.

    Where the engines set the pace, the policy may be slower.
    """
    quickest_s = min(choice.step_s for choice in choices) + engine_s
    alike = [choice for choice in choices if choice.step_s + engine_s <= (1 + ALIKE) * quickest_s]
    return min(alike, key=lambda choice: choice.complexity)


def fitting_trainers(demand: Demand, num_gpus: int) -> list[TrainerChoice]:
    """Those that take all of `num_gpus` GPUs and whose fullest rank fits.

    Each recomputes as little as it can. The tokens of a sequence are shared out only where nothing else fits.
    """
    for context_parallel in _CONTEXT_SIZES:
        layouts = trainer_layouts(
            demand.architecture,
            num_gpus=num_gpus,
            gpus_per_node=demand.gpu.gpus_per_node,
            micro_batch_tokens=demand.config.policy.micro_batch_tokens,
            context_parallel=context_parallel,
        )
        if found := [choice for layout in layouts for choice in _fitting(demand, layout)]:
            return found
    return []


def _fitting(demand: Demand, layout: Layout) -> Iterator[TrainerChoice]:
    """With the least recomputation, as it is and with its stages in chunks, which take more memory."""
    plain = _least_recomputed(demand, layout)
    if plain is None:
        return
    yield plain
    for layout_in_chunks in virtual_pipelines(demand.architecture, layout):
        if (choice := _least_recomputed(demand, layout_in_chunks)) is not None:
            yield choice


def _least_recomputed(demand: Demand, layout: Layout) -> TrainerChoice | None:
    for recompute in Recompute:
        if (choice := trainer_choice(demand.recomputing(recompute), layout)).fits:
            return choice
    return None


def fitting_engines(demand: Demand, num_gpus: int) -> list[EngineChoice]:
    """Those that take all of `num_gpus` GPUs and whose ranks fit."""
    layouts = engine_layouts(demand.architecture, num_gpus=num_gpus, gpus_per_node=demand.gpu.gpus_per_node)
    choices = (engine_choice(demand, layout) for layout in layouts)
    return [choice for choice in choices if choice.fits]


def _too_few(demand: Demand, budget: Budget) -> str:
    """What was given, and the least that fits."""
    sizes = range(1, _MOST_GPUS + 1)
    least_trainer = next((n for n in sizes if fitting_trainers(demand, n)), None)
    least_engines = next((n for n in sizes if fitting_engines(demand, n)), None)
    gpus = f"{demand.gpu.name} of {demand.gpu.memory_gb:g} GB"
    given = ", ".join(
        f"--{name} = {number}"
        for name, number in (
            ("gpus", budget.num_gpus),
            ("trainer-gpus", budget.trainer_gpus),
            ("engine-gpus", budget.engine_gpus),
        )
        if number is not None
    )
    if least_trainer is None or least_engines is None:
        side = "policy" if least_trainer is None else "engines"
        return f"{given}: the {side} fit on no number of {gpus} up to {_MOST_GPUS}; plan with another --gpu"
    rewards = num_reward_ranks(demand.config)
    beside = f", beside {rewards} for reward models" if rewards else ""
    return (
        f"{given}: no layout on {gpus} fits; the least that does is {least_trainer} for the policy and "
        f"{least_engines} for an engine{beside}: give --gpus {least_trainer + least_engines + rewards} or "
        "more, in numbers that the model's heads and layers can be cut by"
    )
