"""What precisions come to, and what is refused of them."""

from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from rlstack.config.arithmetic import Arithmetic, parse_version
from rlstack.config.load import load_config
from rlstack.config.precision import (
    EnginePrecision,
    engine_precision,
    probe_limit,
    rollout_precision,
    training_precision,
)
from rlstack.config.schema import Fp8Recipe, Precision, RunConfig
from rlstack.config.validate_precision import (
    engine_machine_problems,
    policy_machine_problems,
    precision_problems,
    refuse,
)
from rlstack.errors import ConfigError

ROOT = Path(__file__).parents[2]
HOPPER = Arithmetic(compute_capability=(9, 0), cuda=(13, 0), transformer_engine=(2, 14))
NO_GPU = Arithmetic()


@dataclass(frozen=True)
class Shape:
    """Of Llama-3.1-8B, which every recipe can be cut of up to TP 8."""

    num_layers: int = 32
    hidden_size: int = 4096
    head_dim: int = 128
    num_heads: int = 32
    num_kv_heads: int = 8
    ffn_size: int = 14336


def settings(*overrides: str) -> RunConfig:
    return load_config(ROOT / "configs" / "quickstart.yaml", overrides)


def fp8(*overrides: str) -> RunConfig:
    return settings("policy.precision=fp8", *overrides)


@pytest.mark.parametrize(
    ("overrides", "trained_in", "dtype", "quantization"),
    [
        ([], "float32", "float32", None),
        (["policy.precision=bf16"], "bfloat16", "bfloat16", None),
        (["policy.precision=bf16", "rollout.precision=fp32"], "bfloat16", "float32", None),
        (["policy.precision=fp8"], "bfloat16", "bfloat16", None),
        (["rollout.precision=fp8"], "float32", "bfloat16", "fp8_per_channel"),
        (["policy.precision=fp8", "rollout.precision=fp8"], "bfloat16", "bfloat16", "fp8_per_channel"),
        (["rollout.precision=fp8", "rollout.fp8_scaling=tensor"], "float32", "bfloat16", "fp8_per_tensor"),
        (["rollout.precision=fp8", "rollout.fp8_scaling=block"], "float32", "bfloat16", "fp8_per_block"),
    ],
)
def test_weights_between_the_parts_are_fp32_or_bf16(
    overrides: list[str], trained_in: str, dtype: str, quantization: str | None
) -> None:
    config = settings(*overrides)
    assert training_precision(config.policy).dtype == trained_in
    assert engine_precision(config) == EnginePrecision(
        dtype=dtype, quantization=quantization, head_dtype="float32"
    )


def test_a_head_in_the_weights_precision_has_to_be_set() -> None:
    heads = {
        rollout: engine_precision(settings(f"rollout.precision={rollout}", "rollout.fp32_head=false"))
        for rollout in ("fp32", "bf16", "fp8")
    }
    found = {rollout: precision.head_dtype for rollout, precision in heads.items()}
    assert found == {"fp32": "float32", "bf16": "bfloat16", "fp8": "bfloat16"}


def test_engines_follow_the_policy_but_into_fp8() -> None:
    asked = {wanted: rollout_precision(settings(f"policy.precision={wanted}")) for wanted in Precision}
    assert asked == {
        Precision.fp32: Precision.fp32,
        Precision.bf16: Precision.bf16,
        Precision.fp8: Precision.bf16,
    }


def test_a_probe_allows_for_the_less_precise_side() -> None:
    limits = [
        probe_limit(settings(*overrides))
        for overrides in (
            [],
            ["policy.precision=bf16", "rollout.precision=fp32"],
            ["rollout.precision=bf16"],
            ["policy.precision=bf16", "rollout.precision=fp8"],
            ["policy.precision=fp8"],
        )
    ]
    assert limits == [1e-3, 0.06, 0.06, 0.5, 0.5]


@pytest.mark.parametrize("precision", [Precision.fp32, Precision.bf16])
def test_without_fp8_nothing_is_padded_and_nothing_of_it_set(precision: Precision) -> None:
    found = training_precision(replace(settings().policy, precision=precision))
    assert (found.fp8, found.token_multiple) == ({}, 1)


@pytest.mark.parametrize(
    ("recipe", "numbers", "multiple"),
    [("blockwise", "e4m3", 128), ("tensorwise", "hybrid", 16), ("delayed", "hybrid", 16)],
)
def test_a_recipe_brings_its_numbers_and_its_multiple(recipe: str, numbers: str, multiple: int) -> None:
    found = training_precision(fp8(f"policy.fp8.recipe={recipe}").policy)
    assert (found.fp8["fp8_recipe"], found.fp8["fp8"], found.token_multiple) == (recipe, numbers, multiple)
    other = training_precision(fp8(f"policy.fp8.recipe={recipe}", "policy.fp8.format=e4m3").policy)
    assert other.fp8["fp8"] == "e4m3"


@pytest.mark.parametrize("recipe", list(Fp8Recipe))
def test_megatron_takes_what_a_recipe_comes_to(recipe: Fp8Recipe) -> None:
    from rlstack.model.known_models import KNOWN_MODELS
    from rlstack.policy.layers import transformer_config

    settings = fp8(f"policy.fp8.recipe={recipe.value}", "policy.fp8.margin=1").policy
    found = transformer_config(KNOWN_MODELS["Llama-3.1-8B"], settings)
    assert {name: getattr(found, name) for name in training_precision(settings).fp8} == dict(
        training_precision(settings).fp8
    )
    assert (found.bf16, found.fp8_param, found.fp8_margin) == (True, False, 1)


def test_layers_at_the_ends_stay_in_bf16_where_asked() -> None:
    found = training_precision(fp8("policy.fp8.bf16_layers_at_end=2").policy).fp8
    assert found["first_last_layers_bf16"] is True
    assert (found["num_layers_at_start_in_bf16"], found["num_layers_at_end_in_bf16"]) == (0, 2)
    assert training_precision(fp8().policy).fp8["first_last_layers_bf16"] is False


@pytest.mark.parametrize("recipe", list(Fp8Recipe))
@pytest.mark.parametrize("tensor_parallel", [1, 2, 8])
def test_a_usual_model_fits_every_recipe(recipe: Fp8Recipe, tensor_parallel: int) -> None:
    config = fp8(f"policy.fp8.recipe={recipe.value}", f"policy.tensor_parallel={tensor_parallel}")
    assert list(precision_problems(config, Shape())) == []


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["policy.fp8.recipe=delayed", "policy.fp8.bf16_layers_at_start=1"],
            "policy.fp8.bf16_layers_at_start = 1: 0 is accepted with policy.fp8.recipe = delayed",
        ),
        (
            ["policy.fp8.recipe=tensorwise", "policy.pipeline_parallel=4", "policy.fp8.bf16_layers_at_end=9"],
            "policy.fp8.bf16_layers_at_end = 9: at most 8 is accepted",
        ),
        (
            ["policy.precision=bf16", "rollout.precision=fp8", "transfer.landing=direct"],
            "transfer.landing = direct: auto | staged is accepted with rollout.precision = fp8",
        ),
    ],
)
def test_what_no_machine_can_do_is_refused(overrides: list[str], message: str) -> None:
    (only,) = precision_problems(fp8(*overrides), Shape())
    assert message in only


def test_matrices_that_blocks_do_not_fill_are_refused_on_both_sides() -> None:
    shape = replace(Shape(), ffn_size=14208)  # 111 x 128
    assert list(precision_problems(fp8("rollout.precision=fp8", "rollout.fp8_scaling=block"), shape)) == []
    halves = ["policy.tensor_parallel=2", "rollout.tensor_parallel=2", "rollout.precision=fp8"]
    policy, rollout = precision_problems(fp8(*halves, "rollout.fp8_scaling=block"), shape)
    cause = "7104 feed-forward columns"
    assert f"policy.tensor_parallel = 2: each rank has {cause}, where policy.fp8.recipe = blockwise" in policy
    assert f"rollout.tensor_parallel = 2: each rank has {cause}, where rollout.fp8_scaling = block" in rollout
    assert list(precision_problems(fp8(*halves, "policy.fp8.recipe=tensorwise"), shape)) == []


@pytest.mark.parametrize(
    ("machine", "overrides", "message"),
    [
        (NO_GPU, [], "policy.precision = fp8: it needs an NVIDIA GPU, and there is none; set it to bf16"),
        (
            replace(HOPPER, compute_capability=(8, 0)),
            [],
            "policy.precision = fp8: it needs a GPU of compute capability 8.9 or more",
        ),
        (
            replace(HOPPER, transformer_engine=None),
            ["policy.fp8.recipe=delayed"],
            "it needs Transformer Engine 2.1 or later, and there is none; pip install '.[gpu]', or set pol",
        ),
        (
            replace(HOPPER, transformer_engine=(2, 2)),
            [],
            "policy.fp8.recipe = blockwise: on a GPU it needs Transformer Engine 2.3 or later, and there is",
        ),
        (
            replace(HOPPER, cuda=(12, 8)),
            [],
            "blockwise: it needs torch built for CUDA 12.9 or later, and this is for 12.8; set policy.fp8",
        ),
        (
            replace(HOPPER, compute_capability=(8, 9)),
            [],
            "policy.fp8.recipe = blockwise: it needs a GPU of compute capability 9.0 or more",
        ),
    ],
)
def test_a_machine_that_cannot_train_in_fp8_is_told_what_it_lacks(
    machine: Arithmetic, overrides: list[str], message: str
) -> None:
    (only,) = policy_machine_problems(fp8(*overrides).policy, machine)
    assert message in only


@pytest.mark.parametrize(
    ("precision", "transformer_engine", "message"),
    [
        (
            "bf16",
            None,
            "bf16: on a GPU it needs Transformer Engine 2.1 or later, and there is none; pip install",
        ),
        (
            "fp32",
            (2, 9),
            "fp32: on a GPU it needs Transformer Engine 2.12 or later, and there is 2.9; pip ins",
        ),
    ],
)
def test_on_gpus_the_layers_are_transformer_engines(
    precision: str, transformer_engine: tuple[int, int] | None, message: str
) -> None:
    machine = replace(HOPPER, transformer_engine=transformer_engine)
    (only,) = policy_machine_problems(settings(f"policy.precision={precision}").policy, machine)
    assert message in only


def test_on_gpus_fp32_takes_no_context_parallelism() -> None:
    policy = settings("policy.context_parallel=2", "policy.precision=fp32").policy
    (only,) = policy_machine_problems(policy, HOPPER)
    assert only.startswith("policy.context_parallel = 2: 1 is accepted with policy.precision = fp32 on a GPU")
    assert list(policy_machine_problems(policy, NO_GPU)) == []
    assert list(policy_machine_problems(replace(policy, precision=Precision.bf16), HOPPER)) == []


def test_a_machine_that_can_is_not_refused() -> None:
    for recipe in Fp8Recipe:
        assert list(policy_machine_problems(fp8(f"policy.fp8.recipe={recipe.value}").policy, HOPPER)) == []
    ada = replace(HOPPER, compute_capability=(8, 9), cuda=(12, 4))
    assert list(policy_machine_problems(fp8("policy.fp8.recipe=delayed").policy, ada)) == []
    for machine in (NO_GPU, HOPPER):
        assert list(policy_machine_problems(settings("policy.precision=bf16").policy, machine)) == []
    for overrides in ([], ["policy.precision=bf16"], ["rollout.precision=fp8"]):
        for machine in (NO_GPU, HOPPER):
            assert list(engine_machine_problems(settings(*overrides), machine)) == []


@pytest.mark.parametrize(
    ("machine", "overrides", "message"),
    [
        (
            replace(NO_GPU, has_amx=True),
            ["policy.precision=bf16"],
            "rollout.precision = auto, which is bf16 with policy.precision = bf16: fp32 is accepted on this",
        ),
        (NO_GPU, ["rollout.precision=fp8", "rollout.fp8_scaling=tensor"], "rollout.fp8_scaling = tensor: ch"),
        (
            replace(HOPPER, compute_capability=(8, 0)),
            ["rollout.precision=fp8"],
            "rollout.precision = fp8: it needs a GPU of compute capability 8.9 or more",
        ),
    ],
)
def test_engines_that_a_machine_cannot_run_are_refused(
    machine: Arithmetic, overrides: list[str], message: str
) -> None:
    (only,) = engine_machine_problems(settings(*overrides), machine)
    assert message in only


def test_engines_in_fp32_are_the_way_out_with_amx() -> None:
    config = settings("policy.precision=bf16", "rollout.precision=fp32")
    assert list(engine_machine_problems(config, replace(NO_GPU, has_amx=True))) == []


def test_problems_become_one_error() -> None:
    refuse([])
    with pytest.raises(ConfigError, match="one\ntwo"):
        refuse(iter(["one", "two"]))


@pytest.mark.parametrize(
    ("text", "expected"),
    [("13.0", (13, 0)), ("2.14.1+cu13", (2, 14)), ("2.20.0.dev0", (2, 20)), ("", None), ("x.1", None)],
)
def test_versions_are_read_as_far_as_they_count(text: str, expected: tuple[int, int] | None) -> None:
    assert parse_version(text) == expected


def test_this_machine_says_what_it_has() -> None:
    assert Arithmetic.detect(has_gpus=False).compute_capability is None
