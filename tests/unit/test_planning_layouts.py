"""What recomputation, chunks of stages, uneven stages, contexts, FP8 and shared GPUs change in a plan."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlstack.config.load import load_config
from rlstack.config.schema import Recompute
from rlstack.errors import ConfigError
from rlstack.model.known_models import KNOWN_MODELS
from rlstack.orchestration.layout_text import EngineLayout
from rlstack.tuning.parts import Layout
from rlstack.tuning.planning.activation_memory import chunks_in_flight
from rlstack.tuning.planning.assumptions import Assumptions
from rlstack.tuning.planning.choices import TrainerChoice, colocated, trainer_choice
from rlstack.tuning.planning.demand import Demand, searched
from rlstack.tuning.planning.engine_memory import engine_worker_memory
from rlstack.tuning.planning.hardware import gpu_of
from rlstack.tuning.planning.host_memory import host_memory
from rlstack.tuning.planning.layouts import virtual_pipelines
from rlstack.tuning.planning.planner import Budget, choose, fitting_trainers
from rlstack.tuning.planning.policy_memory import policy_rank_memory
from rlstack.tuning.planning.report import make_plan
from rlstack.tuning.planning.shards import policy_parameters

MATH = Path(__file__).parents[2] / "configs" / "paper" / "math_s10.yaml"
LLAMA = KNOWN_MODELS["Llama-3.1-8B"]
SHARED = ("cluster.placement=colocated", "rollout.overlap=false")


def demand(*overrides: str, model: str = "Llama-3.1-8B", **assumptions: float) -> Demand:
    return Demand(
        config=load_config(MATH, overrides),
        architecture=KNOWN_MODELS[model],
        gpu=gpu_of("h200"),
        assumptions=Assumptions(**assumptions),
        intervals=(1, 10),
    )


def parts(wanted: Demand, layout: Layout, *, stage: int = 0) -> dict[str, float]:
    memory = policy_rank_memory(wanted, layout, stage=stage)
    return {figure.name: figure.value for figure in memory.parts}


def of_policy(*overrides: str) -> TrainerChoice:
    wanted = demand(*overrides)
    return trainer_choice(wanted, Layout.of(wanted.config.policy))


def test_recomputation_takes_less_memory_and_more_time() -> None:
    choices = [of_policy(f"policy.recompute={name}") for name in ("none", "selective", "full")]
    memory = [choice.memory.total.value for choice in choices]
    times = [choice.step_s for choice in choices]
    assert memory == sorted(memory, reverse=True)
    assert times == sorted(times)
    # All but the head once more: a third of the two passes, a little less.
    assert 1.25 < choices[2].training.s_per_token / choices[0].training.s_per_token < 4 / 3


def test_recomputing_some_layers_lies_in_between() -> None:
    """Of 32 layers on a stage, 16: half of the memory and of the work."""
    overrides = ([], ["policy.recompute=full", "policy.recompute_layers=16"], ["policy.recompute=full"])
    none, some, full = (of_policy(*of_case) for of_case in overrides)

    def activations(choice: TrainerChoice) -> float:
        return next(figure.value for figure in choice.memory.parts if figure.name == "activations")

    # Beside what is kept, the head is there at first, and a layer that is made again later.
    assert activations(full) < activations(some) < activations(none)
    speeds = [choice.training.s_per_token for choice in (none, some, full)]
    assert speeds[1] - speeds[0] == pytest.approx((speeds[2] - speeds[0]) / 2)


def test_an_interleaved_rank_holds_its_warm_up_and_one_more() -> None:
    """Of 4 stages in 2 chunks: 2 x the stages after it, a round of the first chunk, and one."""
    layout = Layout(pipeline_parallel=4, virtual_pipeline=2, micro_batch_tokens=1)
    found = [chunks_in_flight(demand(), layout, stage=stage).value for stage in range(4)]
    assert found == [2 * 3 + 4 + 1, 2 * 2 + 4 + 1, 2 * 1 + 4 + 1, 4 + 1]
    plain = Layout(pipeline_parallel=4, micro_batch_tokens=1)
    assert [chunks_in_flight(demand(), plain, stage=stage).value for stage in range(4)] == [4, 3, 2, 1]


def test_chunks_make_the_bubble_smaller() -> None:
    tokens = 8 * 8192.0
    plain, chunks = Layout(pipeline_parallel=4), Layout(pipeline_parallel=4, virtual_pipeline=2)
    assert plain.bubble_share(tokens) == pytest.approx(3 / (8 + 3))
    assert chunks.bubble_share(tokens) == pytest.approx(1.5 / (8 + 1.5))
    assert chunks.num_micro_batches(5 * 8192.0) == 8  # a multiple of the stages
    sizes = [layout.virtual_pipeline for layout in virtual_pipelines(LLAMA, plain)]
    assert sizes == [2, 4]
    assert list(virtual_pipelines(LLAMA, Layout())) == []


def test_the_largest_of_uneven_stages_counts() -> None:
    even = of_policy("policy.pipeline_parallel=2", "policy.data_parallel=8")
    uneven = of_policy(
        "policy.pipeline_parallel=2", "policy.data_parallel=8", "policy.pipeline_layers=[12,20]"
    )
    assert policy_parameters(LLAMA, uneven.layout, stage=1)[-1].inputs["stage_layers"] == 20
    assert uneven.training.efficiency == pytest.approx(even.training.efficiency * 16 / 20, rel=0.01)
    middle = of_policy(
        "policy.pipeline_parallel=4", "policy.data_parallel=4", "policy.pipeline_layers=[1,29,1,1]"
    )
    assert middle.stage == 1


def test_context_parallel_ranks_share_tokens_and_the_optimiser() -> None:
    alone, shared = Layout(data_parallel=4), Layout(context_parallel=4)
    replicated, cut = parts(demand(), alone), parts(demand(), shared)
    assert cut["optimiser"] == replicated["optimiser"]
    assert cut["weights"] == replicated["weights"]
    assert cut["activations"] == pytest.approx(replicated["activations"] / 4)
    assert shared.num_ranks == 4


def test_fp8_keeps_weights_twice_more_and_smaller_activations() -> None:
    layout = Layout(tensor_parallel=2, data_parallel=4)
    bf16, fp8 = (parts(demand(f"policy.precision={name}"), layout) for name in ("bf16", "fp8"))
    in_layers = 32 * policy_parameters(LLAMA, layout, stage=0)[0].value
    assert fp8["weights in FP8"] == 2 * in_layers
    assert fp8["activations"] < bf16["activations"]
    for name in ("weights", "gradients", "optimiser", "reference"):
        assert fp8[name] == bf16[name]
    kept = parts(demand("policy.precision=fp8", "policy.fp8.bf16_layers_at_end=8"), layout)
    assert kept["weights in FP8"] == 2 * in_layers * 24 / 32
    assert of_policy("policy.precision=fp8").step_s < of_policy("policy.precision=bf16").step_s


def test_an_engine_in_fp8_has_more_room_for_its_cache() -> None:
    bf16, fp8 = (
        engine_worker_memory(demand(f"rollout.precision={name}"), tensor_parallel=1)
        for name in ("bf16", "fp8")
    )
    # The embedding and the head stay in bf16.
    assert fp8.weights.value == bf16.weights.value - (8_030_261_248 - 2 * 128_256 * 4096 - 4096)
    assert fp8.kv_tokens > bf16.kv_tokens
    incoming = [figure.value for memory in (bf16, fp8) for figure in memory.parts if "come" in figure.name]
    assert incoming[0] == incoming[1] == bf16.weights.value


def test_a_checkpoint_passes_through_a_nodes_memory() -> None:
    layout, count = Layout(tensor_parallel=8, data_parallel=4), 10**9

    def values(*overrides: str) -> dict[str, float]:
        memory = host_memory(demand(*overrides), layout, parameters=count)
        return {figure.name: figure.value for figure in memory.parts}

    shared = values()
    # The four replicas share what they write, but for a tensor, which is whole on one of them.
    assert shared["a checkpoint's optimiser"] == 8 * 12 * count / 4
    assert shared["a checkpoint's weights"] == 8 * 2 * 2 * count / 4  # the policy's and the reference's
    embedding = 128_256 * 4096
    assert shared["the largest tensor, whole"] == pytest.approx((12 + 2 * 2) * embedding * 3 / 4, rel=0.01)
    assert "the engines' version" not in shared  # which the reference holds
    assert values("schedule.reference_sync=never")["the engines' version"] == 8 * 2 * count
    assert not any("checkpoint" in name for name in values("schedule.save_every=null"))
    poor = trainer_choice(demand(node_memory_gb=60), layout)
    assert poor.memory.fits and not poor.host.fits and not poor.fits


def test_policy_and_engines_on_shared_gpus_leave_each_other_room() -> None:
    wanted = searched(demand(*SHARED))
    alone = trainer_choice(wanted, Layout(tensor_parallel=2, data_parallel=4))
    trainer, engines = colocated(alone, EngineLayout(num_engines=8, tensor_parallel=1))
    assert trainer.fits and engines.fits
    sleeping = trainer.memory.total.value - alone.memory.total.value
    assert sleeping == engines.memory.sleeping.value > 0
    assert sum(figure.value for figure in engines.memory.parts) <= 141e9
    staying = next(figure.value for figure in engines.memory.parts if "policy" in figure.name)
    assert staying == sum(figure.value for figure in trainer.memory.staying)
    assert trainer.host.total.value - alone.host.total.value == 8 * engines.memory.weights.value


def test_shared_gpus_are_all_taken_by_both_sides() -> None:
    best, *_ = choose(searched(demand(*SHARED)), Budget(num_gpus=8))
    assert best.num_gpus == best.trainer.layout.num_ranks == best.engines.num_gpus == 8
    with pytest.raises(
        ConfigError, match=r"--trainer-gpus and --engine-gpus are for cluster\.placement = split"
    ):
        choose(searched(demand(*SHARED)), Budget(trainer_gpus=4, engine_gpus=4))
    with pytest.raises(ConfigError, match="--gpus is not set"):
        choose(searched(demand(*SHARED)), Budget())


def test_recomputation_and_contexts_are_for_what_fits_in_no_other_way() -> None:
    def chosen(num_gpus: int, *overrides: str, **assumptions: float) -> list[TrainerChoice]:
        return fitting_trainers(searched(demand(*overrides, **assumptions)), num_gpus)

    short = chosen(4, "policy.micro_batch_tokens=16384")
    assert {choice.layout.context_parallel for choice in short} == {1}
    recomputed = [c for c in short if c.demand.config.policy.recompute is not Recompute.none]
    assert recomputed
    for choice in recomputed:
        assert not trainer_choice(choice.demand.recomputing(Recompute.none), choice.layout).fits
    longer = chosen(32, prompt_tokens_max=800_000)
    assert {choice.layout.context_parallel for choice in longer} == {2}


def test_the_settings_to_paste_name_what_was_chosen() -> None:
    wanted = demand("policy.recompute=full", "policy.pipeline_parallel=2", "policy.pipeline_layers=[20,12]")
    plan = make_plan("model", wanted, Budget(trainer_gpus=32, engine_gpus=8), price_per_gpu_hour=None)
    again = load_config(MATH, ["policy.recompute=full", "policy.pipeline_layers=[20,12]", *plan.settings])
    best = plan.best.trainer
    assert Layout.of(again.policy) == best.layout
    assert again.policy.recompute is best.demand.config.policy.recompute
    assert again.policy.pipeline_layers is None


def test_an_optimiser_in_host_memory_needs_a_gpu_only_while_it_steps() -> None:
    layout, offload = Layout(tensor_parallel=2, data_parallel=4), "policy.optimizer_offload=true"
    kept, moved = parts(demand(), layout), parts(demand(offload), layout)
    assert "optimiser" not in moved
    passes = kept["activations"] + kept["logprobs, saved"]
    assert moved["more while the optimiser steps"] == max(0, kept["optimiser"] - passes)
    assert sum(moved.values()) < sum(kept.values())
    # What a rank has for itself while an engine on its GPU samples.
    staying = [policy_rank_memory(wanted, layout, stage=0).staying for wanted in (demand(), demand(offload))]
    without = sum(figure.value for figure in staying[0]) - sum(figure.value for figure in staying[1])
    assert without == kept["optimiser"]
    of_hosts = [
        {figure.name: figure.value for figure in host_memory(demand(*o), layout, parameters=4e9).parts}
        for o in ((), (offload,))
    ]
    more = of_hosts[1].pop("the optimiser between steps")
    assert of_hosts[0] == of_hosts[1]
    assert more == pytest.approx(8 * 4 / 3 * 12 * 4e9 / 4)
