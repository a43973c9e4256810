"""The planner's arithmetic and search; its memory model is held against real ranks elsewhere."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlstack.config.load import load_config
from rlstack.config.parallel import stage_layers
from rlstack.config.schema import Objective, ObjectiveName, RunConfig
from rlstack.errors import ConfigError
from rlstack.model.known_models import KNOWN_MODELS, planned_model
from rlstack.model.weight_names import shard_shape, stage_rules
from rlstack.orchestration.predict import predicted_receiver_pieces
from rlstack.transfer.layout import volume
from rlstack.tuning.interval.intervals import parse
from rlstack.tuning.parts import Layout
from rlstack.tuning.planning import planner
from rlstack.tuning.planning.activations import Layers, MicroBatchShape, layer_activations
from rlstack.tuning.planning.assumptions import Assumptions
from rlstack.tuning.planning.choices import TrainerChoice, engine_choice, trainer_choice
from rlstack.tuning.planning.demand import Demand, searched
from rlstack.tuning.planning.derivation import derive, total
from rlstack.tuning.planning.engine_memory import engine_worker_memory
from rlstack.tuning.planning.hardware import gpu_of
from rlstack.tuning.planning.layouts import engine_layouts, splits, trainer_layouts
from rlstack.tuning.planning.planner import ALIKE, Budget, choose, fitting_trainers
from rlstack.tuning.planning.policy_memory import policy_rank_memory
from rlstack.tuning.planning.report import configured
from rlstack.tuning.planning.shards import engine_parameters, policy_parameters
from rlstack.tuning.planning.workspace import KERNEL_SIZES, logprob_workspace, saves_logprobs
from rlstack.tuning.setup import Setup

ROOT = Path(__file__).parents[2]
TP2_DP16 = Layout(tensor_parallel=2, data_parallel=16)
LAYOUT_70B = Layout(tensor_parallel=8, pipeline_parallel=2, data_parallel=4)


def demand(model: str = "Llama-3.1-8B", *overrides: str, **changes) -> Demand:
    """The paper's run on math, s = 10, on H200s."""
    config = load_config(ROOT / "configs/paper/math_s10.yaml", overrides)
    known = {"gpu": gpu_of("h200"), "assumptions": Assumptions(), "intervals": (1, 10), **changes}
    return Demand(config=config, architecture=KNOWN_MODELS[model], **known)


def test_a_figure_is_its_formula_and_shows_the_numbers() -> None:
    figure = derive("rest", "B", "max(0, width*2 - used)/parts", width=5 * 10**9, used=10**9, parts=3)
    assert figure.value == 3 * 10**9
    assert figure.with_numbers == "max(0, 5,000,000,000*2 - 1,000,000,000)/3"
    assert figure.text == "3 GB"
    assert total("both", [figure, derive("more", "B", "one", one=1)]).value == 3 * 10**9 + 1
    with pytest.raises(NameError):
        derive("rest", "B", "__import__('os')")


@pytest.mark.parametrize("model", KNOWN_MODELS)
def test_a_policy_rank_holds_what_the_name_map_says(model: str) -> None:
    architecture = KNOWN_MODELS[model]
    for layout in trainer_layouts(architecture, num_gpus=8, gpus_per_node=8, micro_batch_tokens=1):
        tp_size, num_stages = layout.tensor_parallel, layout.pipeline_parallel
        for stage, layers in enumerate(stage_layers(architecture.num_layers, num_stages=num_stages)):
            rules = stage_rules(architecture, layers)
            if architecture.tied and num_stages == 1:
                del rules["output_layer.weight"]  # it is the embedding
            expected = sum(
                math.prod(shard_shape(rule, architecture, tp_size=tp_size)) for rule in rules.values()
            )
            assert policy_parameters(architecture, layout, stage=stage)[-1].value == expected


@pytest.mark.parametrize("model", KNOWN_MODELS)
def test_an_engine_worker_holds_what_vllms_layout_says(model: str) -> None:
    """Of these models vLLM pads no vocabulary."""
    architecture = KNOWN_MODELS[model]
    for layout in engine_layouts(architecture, num_gpus=8, gpus_per_node=8):
        size = layout.tensor_parallel
        pieces = predicted_receiver_pieces(architecture, tensor_parallel=size, rank=0)
        expected = sum(volume(piece.box) for piece in pieces)
        assert engine_parameters(architecture, tensor_parallel=size)[-1].value == expected


def test_the_papers_8b_in_numbers_that_are_published() -> None:
    model = KNOWN_MODELS["Llama-3.1-8B"]
    assert policy_parameters(model, Layout(), stage=0)[-1].value == 8_030_261_248
    memory = engine_worker_memory(demand(), tensor_parallel=1)
    assert memory.weights.value == 2 * 8_030_261_248
    assert memory.kv_bytes_per_token.value == 128 * 1024


def test_states_are_those_of_zero_one() -> None:
    """Bytes per parameter: weight 2, gradient 4, optimiser 12 over data-parallel ranks, reference 2."""
    memory = policy_rank_memory(demand(), TP2_DP16, stage=0)
    count = policy_parameters(KNOWN_MODELS["Llama-3.1-8B"], TP2_DP16, stage=0)[-1].value
    values = {figure.name: figure.value for figure in memory.parts}
    states = values["weights"] + values["gradients"] + values["optimiser"] + values["reference"]
    assert states == pytest.approx(count * (2 + 4 + 12 / 16 + 2), rel=1e-6)
    assert memory.total.value == sum(values.values())


def test_no_reference_is_kept_where_none_is_needed() -> None:
    def has_reference(*overrides: str, intervals: tuple[int | None, ...] = (1,)) -> bool:
        memory = policy_rank_memory(
            demand("Llama-3.1-8B", *overrides, intervals=intervals), TP2_DP16, stage=0
        )
        return "reference" in {figure.name for figure in memory.parts}

    online = "schedule.sync_interval=1"
    assert not has_reference(online)
    assert has_reference(online, intervals=(1, 10))
    assert has_reference(online, "schedule.reference_sync=never")
    assert not has_reference("objective.name=grpo", "schedule.reference_sync=never")


def test_a_micro_batch_holds_at_least_one_example() -> None:
    assert demand().largest_micro_batch == 8192
    longest = 1024 + 2048
    group = demand("Llama-3.1-8B", "objective.name=group_dpo", "rollout.n=12")
    assert group.largest_micro_batch == 12 * longest
    assert demand("Llama-3.1-8B", "policy.micro_batch_tokens=64").largest_micro_batch == 2 * longest


@pytest.mark.parametrize("sequence_parallel", [False, True])
def test_tensor_parallel_ranks_share_activations(sequence_parallel: bool) -> None:
    """All but the cosines and sines under sequence parallelism; without it, not the norms either."""

    def kept(tensor_parallel: int) -> float:
        shape = MicroBatchShape(
            num_tokens=1,
            itemsize=2,
            tensor_parallel=tensor_parallel,
            sequence_parallel=sequence_parallel and tensor_parallel > 1,
        )
        model = KNOWN_MODELS["Llama-3.1-8B"]
        figures = layer_activations(model, shape, Layers.transformer_engine)
        shared = [figure for figure in figures[:-1] if figure.name != "cosines and sines"]
        if not sequence_parallel:
            shared = [figure for figure in shared if not figure.name.startswith("norm before")]
        return sum(figure.value for figure in shared)

    assert kept(1) == 8 * kept(8)


def test_early_stages_hold_more_micro_batches() -> None:
    first, last = (policy_rank_memory(demand("Llama-3.1-70B"), LAYOUT_70B, stage=stage) for stage in (0, 1))
    activations = [
        next(figure.value for figure in memory.parts if figure.name == "activations")
        for memory in (first, last)
    ]
    assert activations[0] == pytest.approx(2 * activations[1], rel=0.01)


def test_an_engine_leaves_room_for_the_weights_to_come() -> None:
    small, large = (engine_worker_memory(demand("Llama-3.1-70B"), tensor_parallel=size) for size in (8, 4))
    assert small.gpu_memory_fraction == 0.85
    assert large.gpu_memory_fraction == 0.7
    for memory in (small, large):
        taken = sum(figure.value for figure in memory.parts)
        assert taken <= 141e9
        assert memory.fits
    assert not engine_worker_memory(demand("Llama-3.1-70B"), tensor_parallel=1).fits


def test_layouts_cut_the_model_evenly() -> None:
    model = KNOWN_MODELS["Llama-3.1-70B"]
    layouts = list(trainer_layouts(model, num_gpus=64, gpus_per_node=8, micro_batch_tokens=8192))
    assert len(layouts) == len(set(layouts))
    for layout in layouts:
        assert layout.num_ranks == 64
        assert layout.tensor_parallel in (1, 2, 4, 8)
        assert 80 % layout.pipeline_parallel == 0
    assert LAYOUT_70B in layouts
    qwen = KNOWN_MODELS["Qwen2.5-7B"]  # 28 heads, 4 of keys and values
    sizes = [layout.tensor_parallel for layout in engine_layouts(qwen, num_gpus=28, gpus_per_node=8)]
    assert sizes == [1, 2, 4]


@given(st.integers(2, 200))
def test_a_split_uses_all_gpus_and_whole_nodes(num_gpus: int) -> None:
    found = list(splits(num_gpus, gpus_per_node=8))
    assert found
    for trainer, engines in found:
        assert trainer >= 1 and engines >= 1 and trainer + engines == num_gpus
        assert trainer < 8 or trainer % 8 == 0


@pytest.mark.parametrize(
    ("model", "trainer_gpus", "engine_gpus"), [("Llama-3.1-8B", 32, 8), ("Llama-3.1-70B", 64, 16)]
)
def test_the_issues_clusters_have_a_layout_that_fits(model: str, trainer_gpus: int, engine_gpus: int) -> None:
    wanted = demand(model)
    (choice,) = choose(wanted, Budget(trainer_gpus=trainer_gpus, engine_gpus=engine_gpus))
    assert choice.fits
    assert choice.num_gpus == trainer_gpus + engine_gpus
    prediction = choice.predictions[10]
    assert prediction.step_s >= max(choice.trainer.training.fixed_s, choice.parts.controller.fixed_s)
    # No other layout of these GPUs trains more quickly to speak of.
    engine_s = choice.engines.step_s
    quickest_s = min(c.step_s for c in fitting_trainers(wanted, trainer_gpus)) + engine_s
    assert choice.trainer.step_s + engine_s <= (1 + ALIKE) * quickest_s


def test_the_best_split_is_no_slower_than_the_papers() -> None:
    wanted = demand()
    chosen = choose(wanted, Budget(num_gpus=40))
    fixed = choose(wanted, Budget(trainer_gpus=32, engine_gpus=8))
    steps = [choice.predictions[10].step_s for choice in chosen]
    assert steps == sorted(steps)
    assert steps[0] <= fixed[0].predictions[10].step_s


def test_faster_parts_make_faster_layouts() -> None:
    def seconds(**changes: float) -> tuple[float, float]:
        wanted = demand(assumptions=Assumptions(**changes))
        engines = next(engine_layouts(wanted.architecture, num_gpus=8, gpus_per_node=8))
        return trainer_choice(wanted, TP2_DP16).step_s, engine_choice(wanted, engines).step_s

    train_s, generate_s = seconds()
    assert seconds(mfu=0.9)[0] < train_s
    assert seconds(network_efficiency=0.9)[0] < train_s
    assert seconds(hbm_efficiency=0.9)[1] < generate_s
    assert seconds(answer_share=0.6)[1] > generate_s
    assert seconds(pair_yield=1.0)[0] > train_s


def test_answers_have_the_mean_and_the_limit_that_are_assumed() -> None:
    workload = demand(assumptions=Assumptions(answer_share=0.25, answer_spread=0.3)).workload
    assert workload.mean_answer_tokens == pytest.approx(512, rel=0.01)
    assert max(workload.answer_tokens) <= 2048
    still = demand(assumptions=Assumptions(answer_share=0.25, answer_spread=0)).workload
    assert still.answer_tokens == pytest.approx([512] * len(still.answer_tokens))


@pytest.mark.parametrize("gpus", [{"num_gpus": 8}, {"trainer_gpus": 4, "engine_gpus": 4}])
def test_too_few_gpus_name_the_least_that_fits(gpus: dict[str, int]) -> None:
    wanted = demand("Llama-3.1-70B")
    wanted = replace(wanted, gpu=gpu_of("h100"))
    with pytest.raises(ConfigError, match="the least that does is") as error:
        choose(wanted, Budget(**gpus))
    found = re.search(r"is (\d+) for the policy and (\d+) for an engine", str(error.value))
    trainer, engines = map(int, found.groups())
    assert fitting_trainers(wanted, trainer)
    assert not any(fitting_trainers(wanted, fewer) for fewer in range(1, trainer))
    assert choose(wanted, Budget(trainer_gpus=trainer, engine_gpus=engines))


@pytest.mark.parametrize(
    ("budget", "shown"),
    [
        (Budget(), "--gpus is not set; give it, or --trainer-gpus and --engine-gpus"),
        (Budget(trainer_gpus=4), "--gpus is not set"),
        (Budget(num_gpus=10, trainer_gpus=4, engine_gpus=4), "--gpus = 10: --trainer-gpus = 4"),
    ],
)
def test_numbers_of_gpus_that_do_not_add_up_are_refused(budget: Budget, shown: str) -> None:
    with pytest.raises(ConfigError, match=shown):
        choose(demand(), budget)


def test_a_model_is_known_by_its_folder_or_its_name(tmp_path: Path) -> None:
    for name in ("Llama-3.1-8B", "llama-3.1-8b", "Llama-3.1-8B-Instruct"):
        assert planned_model(f"/nowhere/{name}") == ("Llama-3.1-8B", KNOWN_MODELS["Llama-3.1-8B"])
    seed = ROOT / "configs/tiny/seed"
    assert planned_model(str(seed))[1].hidden_size == 128
    with pytest.raises(ConfigError, match=r"policy.model = .*Llama-9: there is no config.json"):
        planned_model(str(tmp_path / "Llama-9"))


def test_intervals_are_numbers_of_steps_or_offline() -> None:
    assert parse("1, 10,inf,null") == [1, 10, None, None]
    for text in ("", "0", "1,,2", "often"):
        with pytest.raises(ConfigError, match="--intervals '"):
            parse(text)


@pytest.mark.parametrize("text", ["mfu", "mfu=", "mfu=fast", "mfu=-1", "mfu=1.5", "speed=2", "mfu=nan"])
def test_assumptions_are_names_with_numbers(text: str) -> None:
    assert Assumptions().with_overrides(["mfu=0.3", "prompt_tokens=9"]).mfu == 0.3
    with pytest.raises(ConfigError, match="--assume = "):
        Assumptions().with_overrides([text])


def test_ligers_logprobs_take_a_weights_gradient_and_a_chunk_of_logits() -> None:
    run = demand("Llama-3.1-8B", "policy.logprob_kernel=liger", "policy.logprob_save_gib=1000")
    tokens, hidden, vocab = run.largest_micro_batch, 4096, 128256
    assert tokens > 512
    figure = logprob_workspace(run, Layout(), Layers.transformer_engine)
    assert figure.value == tokens * hidden * 8 + 2 * vocab * hidden + 18 * 512 * vocab
    assert not saves_logprobs(run, Layout(), Layers.transformer_engine)


def test_the_kernels_sizes_are_those_of_the_kernels() -> None:
    """Repeated in the planner, which imports no torch."""
    from rlstack_kernels import blockwise, options

    budgets = {"CPU": options.CPU_SAVE_BUDGET_BYTES, "GPU": options.GPU_SAVE_BUDGET_BYTES}
    for layers, device in ((Layers.local, "CPU"), (Layers.transformer_engine, "GPU")):
        assert KERNEL_SIZES[layers] == (*getattr(blockwise, device), budgets[device])


def test_a_loss_of_the_users_own_says_itself_that_it_needs_a_reference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GRPO without a KL term needs none; a loss in its place may."""
    (tmp_path / "own_loss_of_a_plan.py").write_text(
        "class Own:\n    needs_reference, needs_entropy_gradient = True, False\n"
        "    def __call__(self, inputs): ..."
    )
    monkeypatch.syspath_prepend(tmp_path)
    grpo = Objective(name=ObjectiveName.grpo)
    own = replace(grpo, loss="own_loss_of_a_plan:Own")
    assert [Setup.of(RunConfig(objective=o)).needs_reference for o in (grpo, own)] == [False, True]


def test_a_search_leaves_out_only_splits_that_cannot_be_among_the_quickest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Few of many splits have their layouts looked at; where all have, nothing changes."""
    searched_sizes: list[int] = []

    def counted(wanted: Demand, num_gpus: int) -> list[TrainerChoice]:
        searched_sizes.append(num_gpus)
        return fitting_trainers(wanted, num_gpus)

    monkeypatch.setattr(planner, "fitting_trainers", counted)
    run, budget = searched(demand("Llama-3.1-8B", "batch.prompts_per_step=64")), Budget(num_gpus=128)
    quickest = planner._split_pairs(run, budget)
    assert len(searched_sizes) < 12
    monkeypatch.setattr(planner, "_NUM_CANDIDATES", 1000)
    everywhere = planner._split_pairs(run, budget)
    assert len(searched_sizes) > 24
    layouts = [
        [(trainer.layout, engines.layout) for trainer, engines in pairs[:6]]
        for pairs in (quickest, everywhere)
    ]
    assert layouts[0] == layouts[1]


def test_the_controllers_time_and_memory_grow_with_the_tokens_of_a_step() -> None:
    small = configured(demand())
    large = configured(demand("Llama-3.1-8B", "batch.prompts_per_step=512"))
    times = [choice.parts.controller.fixed_s for choice in (small, large)]
    assert times[1] > 4 * times[0]
    prompts = small.trainer.demand.config.batch.prompts_per_step
    assert large.waiting.value == pytest.approx(small.waiting.value * 512 / prompts)
    assert small.waiting.inputs["steps"] == 10
