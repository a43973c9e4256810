"""Policy and engines in FP8 quantise the same layers, or are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest
from torch import nn

from rlstack.config.load import load_config
from rlstack.config.precision import unquantised_layers
from rlstack.config.schema import RunConfig
from rlstack.errors import ConfigError
from rlstack.model.known_models import KNOWN_MODELS
from rlstack.model.weight_names import stage_rules
from rlstack.orchestration import weight_probe
from rlstack.orchestration.protocols import Probed
from rlstack.orchestration.weight_probe import check_quantised, difference

ROOT = Path(__file__).parents[2]
MODEL = KNOWN_MODELS["Llama-3.1-8B"]
# Of Transformer Engine's layers, as megatron-core names their parameters in a chunk.
LINEARS = ("self_attention.linear_qkv", "self_attention.linear_proj", "mlp.linear_fc1", "mlp.linear_fc2")
PACKED = ("self_attn.qkv_proj", "self_attn.o_proj", "mlp.gate_up_proj", "mlp.down_proj")  # vLLM's of a layer


def settings(*overrides: str) -> RunConfig:
    both = ["policy.precision=fp8", "rollout.precision=fp8"]
    return load_config(ROOT / "configs" / "quickstart.yaml", [*both, *overrides])


def of_policy(config: RunConfig, layers: range = range(MODEL.num_layers)) -> set[str]:
    """The weights of a chunk with `layers` that the policy quantises."""
    from rlstack.policy.layers import transformer_config
    from rlstack.policy.quantised import quantised_names

    names = [f"decoder.layers.{i}.{linear}.weight" for i in range(len(layers)) for linear in LINEARS]
    return quantised_names(transformer_config(MODEL, config.policy), MODEL, names, first_layer=layers.start)


def of_engine(config: RunConfig) -> set[str]:
    """The weights that vLLM's own settings, as load.py gives them, quantise."""
    pytest.importorskip("vllm")
    from vllm.config.quantization import resolve_quantization_config
    from vllm.model_executor.layers.linear import LinearBase
    from vllm.model_executor.layers.quantization.online.base import OnlineQuantizationConfig
    from vllm.model_executor.models.llama import LlamaForCausalLM

    from rlstack.transfer.quantised import weight_names

    layers = unquantised_layers(config, num_layers=MODEL.num_layers)
    ignored = {"ignore": [f"model.layers.{layer}.*" for layer in layers]}
    online = OnlineQuantizationConfig(resolve_quantization_config("fp8_per_channel", ignored))
    online.packed_modules_mapping = LlamaForCausalLM.packed_modules_mapping
    paths = [f"model.layers.{i}.{packed}" for i in range(MODEL.num_layers) for packed in PACKED]
    chosen = [path for path in paths if online.resolve_quant_method_cls(LinearBase, path) is not None]
    return weight_names(chosen, LlamaForCausalLM.packed_modules_mapping)


@pytest.mark.parametrize(
    ("overrides", "num_quantised"),
    [
        ([], 32),
        (["policy.fp8.bf16_layers_at_start=1", "policy.fp8.bf16_layers_at_end=2"], 29),
        (["policy.fp8.bf16_layers_at_end=11"], 21),  # layers 1 and 2x are not layers 1x
    ],
)
def test_both_sides_quantise_the_same_layers(overrides: list[str], num_quantised: int) -> None:
    config = settings(*overrides)
    ours, theirs = of_policy(config), of_engine(config)
    assert ours == theirs
    assert len(ours) == 7 * num_quantised
    assert difference(ours, theirs, engine="engine-0") is None


def test_an_engine_of_another_policy_quantises_all_layers() -> None:
    config = settings("policy.precision=bf16", "policy.fp8.bf16_layers_at_start=1")
    assert unquantised_layers(config, num_layers=4) == []
    assert of_policy(config) == set()
    with_bf16 = settings("policy.fp8.bf16_layers_at_start=1", "policy.fp8.bf16_layers_at_end=2")
    assert unquantised_layers(with_bf16, num_layers=8) == [0, 6, 7]


def test_layers_count_from_the_models_first_in_every_stage() -> None:
    config = settings("policy.fp8.bf16_layers_at_start=1", "policy.fp8.bf16_layers_at_end=1")
    stages = [of_policy(config, range(first, first + 16)) for first in (0, 16)]
    assert set.union(*stages) == of_policy(config)
    assert not set.intersection(*stages)


def test_only_transformer_engines_linears_count() -> None:
    from rlstack.policy.quantised import quantisable

    class Linear(nn.Linear):
        fp8_meta: ClassVar[dict[str, Any]] = {}

    class Attention(nn.Module):
        fp8_meta: ClassVar[dict[str, Any]] = {}  # has no weight

    chunk = nn.ModuleDict({"proj": Linear(2, 2), "attention": Attention(), "norm": nn.RMSNorm(2)})
    assert quantisable(chunk) == ["proj.weight"]
    assert all(f"decoder.layers.0.{linear}.weight" in stage_rules(MODEL) for linear in LINEARS)


class Role:
    """Of which only the answer matters."""

    def __init__(self, name: str, names: set[str]) -> None:
        self.title, self.names, self.asked = name, names, 0

    def start(self, method: object) -> list[str]:
        assert method is Probed.quantised_weights
        self.asked += 1
        return sorted(self.names)


@pytest.fixture
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weight_probe, "wait_for", lambda calls, **_: calls)


def test_layers_that_differ_are_named(no_ray: None) -> None:
    names = [f"model.layers.{i}.mlp.{x}_proj.weight" for i in range(4) for x in ("up", "down")]
    policy: list[Any] = [Role("policy-0", set(names[:2])), Role("policy-1", set(names[2:]))]
    same, other = Role("engine-0", set(names)), Role("engine-1", {*names[4:], "lm_head.weight"})
    engines: list[Any] = [same, other]
    check_quantised(settings(), engines[:1], policy=policy)
    with pytest.raises(ConfigError) as error:
        check_quantised(settings(), engines, policy=policy)
    assert str(error.value) == (
        "policy.precision = rollout.precision = fp8: engine-1 and the policy quantise different layers: "
        "engine-1 alone lm_head.weight; the policy alone mlp.down_proj.weight of layers 0-1, "
        "mlp.up_proj.weight of layers 0-1; the same layers are accepted: set rollout.precision=bf16, or give "
        "all nodes the same packages"
    )


@pytest.mark.parametrize("override", ["policy.precision=bf16", "rollout.precision=bf16"])
def test_sides_that_are_not_both_in_fp8_are_not_compared(override: str, no_ray: None) -> None:
    policy, engine = Role("policy-0", set()), Role("engine-0", {"model.layers.0.mlp.up_proj.weight"})
    roles: Any = ([engine], [policy])
    check_quantised(settings(override), roles[0], policy=roles[1])
    assert policy.asked == engine.asked == 0
