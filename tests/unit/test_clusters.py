"""The configs for clusters: valid, planned to fit, and with the planner's own words at their end."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from rlstack.config.load import load_config
from rlstack.config.machine import Machine
from rlstack.config.validate import missing_inputs, problems
from rlstack.model.known_models import planned_model
from rlstack.tuning.planning.combination import Choice
from rlstack.tuning.planning.comment import FIRST_LINE, comment_lines, with_comment
from rlstack.tuning.planning.demand import Demand, searched
from rlstack.tuning.planning.planner import Budget, choose
from rlstack.tuning.planning.report import configured
from rlstack.tuning.planning.request import make_demand

FOLDER = Path(__file__).parents[2] / "configs" / "clusters"
NOTHING = Machine(num_cores=1, num_gpus=0)  # a run on a Ray cluster does not depend on this machine
BUDGETS = {
    "llama-3.1-8b_32+8": Budget(trainer_gpus=32, engine_gpus=8),
    "llama-3.1-8b_8": Budget(num_gpus=8),
    "llama-3.1-70b_64+16": Budget(trainer_gpus=64, engine_gpus=16),
    "qwen3-32b_16+8": Budget(trainer_gpus=16, engine_gpus=8),
}
SLOWER = 1.05  # than the planner's best layout: all that a choice for other reasons may cost

by_name = pytest.mark.parametrize("name", BUDGETS)


def path_of(name: str) -> Path:
    return FOLDER / f"{name}.yaml"


@cache
def demand_of(name: str) -> Demand:
    return make_demand(path_of(name), (), gpu="h200", assume=(), intervals="1,5,10,50,inf")[1]


@cache
def own_choice(name: str) -> Choice:
    return configured(demand_of(name))


def test_every_file_is_in_the_tests_and_in_the_table() -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.yaml")) == sorted(BUDGETS)
    table = (FOLDER / "README.md").read_text()
    for name in BUDGETS:
        assert f"| `{name}.yaml` |" in table


@by_name
def test_is_valid_for_its_model_and_lacks_only_its_inputs(name: str) -> None:
    config = load_config(path_of(name))
    assert config.run.name == name
    _, architecture = planned_model(config.policy.model)
    assert problems(config, architecture=architecture, machine=NOTHING) == []
    inputs = [*config.data.tasks, *config.evaluation.tasks]
    assert len(missing_inputs(config)) == len(inputs)


@by_name
def test_fits_and_is_about_as_quick_as_any_layout_of_its_gpus(name: str) -> None:
    demand, own = demand_of(name), own_choice(name)
    assert own.fits
    # With what the file says, not with what would do.
    assert own.engines.memory.gpu_memory_fraction == demand.config.rollout.gpu_memory_fraction
    budget = BUDGETS[name]
    policy, engines = own.trainer.layout.num_ranks, own.engines.num_gpus
    if demand.colocated:
        assert (policy, engines) == (budget.num_gpus, budget.num_gpus)
    else:
        assert (policy, engines) == (budget.trainer_gpus, budget.engine_gpus)
    best, *_ = choose(searched(demand), budget)
    s = demand.own_interval
    assert own.predictions[s].step_s <= SLOWER * best.predictions[s].step_s


@by_name
def test_the_comment_is_what_the_planner_says_today(name: str) -> None:
    """If not: python tools/plan_comments.py configs/clusters/*.yaml"""
    lines = comment_lines(own_choice(name))
    assert "#   fits: yes" in lines
    text = path_of(name).read_text()
    assert text == with_comment(text, lines)


def test_a_new_comment_takes_the_place_of_the_old_one() -> None:
    text = with_comment("a: 1\n", [FIRST_LINE, "#   old"])
    assert text == f"a: 1\n\n{FIRST_LINE}\n#   old\n"
    assert with_comment(text, [FIRST_LINE, "#   new"]) == f"a: 1\n\n{FIRST_LINE}\n#   new\n"
