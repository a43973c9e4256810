from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from rlstack.config.load import load_config
from rlstack.config.machine import Machine
from rlstack.config.schema import ObjectiveName, RunConfig
from rlstack.config.validate import missing_inputs, problems
from rlstack.config.validate_rewards import num_reward_ranks
from rlstack.model.architecture import Architecture
from rlstack.model.known_models import architecture_of

CONFIGS = Path(__file__).parents[2] / "configs"
TINY = sorted((CONFIGS / "tiny" / "recipes").glob("*.yaml"))
PAPER = sorted(path for path in (CONFIGS / "paper").glob("*.yaml") if path.stem != "defaults")
TWO_CORES = Machine(num_cores=2, num_gpus=0)
NOTHING = Machine(num_cores=1, num_gpus=0)  # a recipe for a Ray cluster does not depend on this machine

by_name = pytest.mark.parametrize("path", [*TINY, *PAPER], ids=lambda path: path.stem)
of_the_paper = pytest.mark.parametrize("path", PAPER, ids=lambda path: path.stem)


@cache
def load(path: Path) -> RunConfig:
    return load_config(path)


def paper(name: str) -> RunConfig:
    return load(CONFIGS / "paper" / f"{name}.yaml")


@by_name
def test_a_run_is_called_like_its_recipe(path: Path) -> None:
    assert load(path).run.name == path.stem


@pytest.mark.parametrize("path", TINY, ids=lambda path: path.stem)
def test_a_tiny_recipe_runs_on_two_cores_with_what_is_there(path: Path) -> None:
    config = load(path)
    architecture = Architecture.from_folder(Path(config.policy.model))
    assert problems(config, architecture=architecture, machine=TWO_CORES) == []
    assert missing_inputs(config) == []


@of_the_paper
def test_a_recipe_of_the_paper_is_valid_for_llama_and_lacks_only_its_inputs(path: Path) -> None:
    config = load(path)
    assert problems(config, architecture=architecture_of("Llama-3.1-8B"), machine=NOTHING) == []
    inputs = [*config.data.tasks, *config.evaluation.tasks, *config.reward.models]
    assert len(missing_inputs(config)) == len(inputs)


@of_the_paper
def test_a_recipe_of_the_paper_trains_on_32_gpus_and_infers_on_8_or_16(path: Path) -> None:
    config = load(path)
    policy, rollout = config.policy, config.rollout
    assert policy.tensor_parallel * policy.pipeline_parallel * policy.data_parallel == 32
    num_inferring = rollout.engines * rollout.tensor_parallel + num_reward_ranks(config)
    assert num_inferring == (16 if len(config.data.tasks) == 2 else 8)


@of_the_paper
def test_the_hyperparameters_are_those_of_table_4(path: Path) -> None:
    config = load(path)
    tasks = {task.name for task in config.data.tasks}
    beta, adam_eps, clip_grad, max_new_tokens, batch = {
        ("numinamath",): (0.1, 1e-4, 1.0, 2048, 64),
        ("wildchat",): (0.01, 1e-8, 0.1, 1024, 32),
        ("numinamath", "wildchat"): (0.01, 1e-5, 0.1, 2048, 32),
    }[tuple(sorted(tasks))]
    assert config.optimizer.lr == 1e-6
    assert config.optimizer.adam_eps == adam_eps
    assert config.optimizer.clip_grad == clip_grad
    assert config.rollout.max_new_tokens == max_new_tokens
    assert config.batch.prompts_per_step == batch
    if config.objective.name is ObjectiveName.grpo:
        assert config.objective.kl_scale == 0.001
        assert config.schedule.sync_interval == 1
    else:
        assert config.objective.beta == beta
    assert (config.rollout.temperature, config.rollout.top_p) == (1.0, 1.0)
    assert (config.evaluation.temperature, config.evaluation.top_p) == (0.6, 0.9)


@of_the_paper
def test_the_reference_follows_the_generator_in_dpo_on_math_alone(path: Path) -> None:
    config = load(path)
    on_math = [task.name for task in config.data.tasks] == ["numinamath"]
    follows = (
        on_math
        and config.objective.name is not ObjectiveName.grpo
        and config.schedule.sync_interval is not None
        and path.stem != "math_no_reference_sync"
    )
    assert config.schedule.reference_sync == ("with_generator" if follows else "never")


def test_every_row_of_the_ablations_is_there() -> None:
    intervals = {
        paper(f"math_{name}").schedule.sync_interval for name in ("offline", "s100", "s10", "online")
    }
    assert intervals == {None, 100, 10, 1}
    intervals = {paper(f"chat_{name}").schedule.sync_interval for name in ("offline", "s10", "s5", "online")}
    assert intervals == {None, 10, 5, 1}
    assert [paper(f"math_grpo_n{n}").rollout.n for n in (4, 8, 12)] == [4, 8, 12]
    assert [paper(f"math_combined_{alpha}").objective.alpha for alpha in ("0.01", "0.001")] == [0.01, 0.001]
    scales = [paper(f"math_entropy_{k}e-4").objective.entropy_scale for k in (1, 2, 3, 5)]
    assert scales == [1e-4, 2e-4, 3e-4, 5e-4]
    assert paper("math_nll").objective.nll_scale == 1.0


@pytest.mark.parametrize(
    ("readme", "recipes"),
    [(CONFIGS / "paper" / "README.md", PAPER), (CONFIGS / "tiny" / "recipes" / "README.md", TINY)],
    ids=["paper", "tiny"],
)
def test_the_table_lists_every_recipe_and_no_other(readme: Path, recipes: list[Path]) -> None:
    cells = [line.split("|")[1].strip() for line in readme.read_text().splitlines() if line.startswith("| `")]
    assert sorted(cells) == [f"`{path.name}`" for path in recipes]
