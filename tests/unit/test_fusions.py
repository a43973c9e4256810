"""Fused kernels by machine, and the memory that they change."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rlstack.config.arithmetic import Arithmetic
from rlstack.config.fusions import FusedKernels, fused_kernels
from rlstack.config.load import load_config
from rlstack.config.schema import Fusions, Policy, Precision
from rlstack.model.known_models import KNOWN_MODELS
from rlstack.policy.layers import fuse_weight_gradients, transformer_config
from rlstack.tuning.parts import Layout
from rlstack.tuning.planning.assumptions import Assumptions
from rlstack.tuning.planning.demand import Demand
from rlstack.tuning.planning.hardware import gpu_of
from rlstack.tuning.planning.policy_memory import policy_rank_memory

MATH = Path(__file__).parents[2] / "configs" / "paper" / "math_s10.yaml"
HOPPER = Arithmetic(compute_capability=(9, 0), cuda=(13, 0), transformer_engine=(2, 14))
ALL = FusedKernels(rope=True, swiglu=True, weight_gradients=True)


@pytest.mark.parametrize(
    ("fusions", "machine", "expected"),
    [
        (Fusions.auto, HOPPER, ALL),
        (Fusions.none, HOPPER, FusedKernels()),
        (Fusions.auto, Arithmetic(transformer_engine=(2, 14)), FusedKernels()),
        (Fusions.auto, replace(HOPPER, has_triton=False), replace(ALL, swiglu=False)),
        (Fusions.auto, replace(HOPPER, transformer_engine=None), FusedKernels(swiglu=True)),
    ],
)
@pytest.mark.parametrize("precision", Precision)
def test_they_are_those_of_the_machine(fusions, machine, expected, precision) -> None:
    assert fused_kernels(Policy(model="m", fusions=fusions, precision=precision), machine) == expected


def test_megatron_core_takes_them(monkeypatch) -> None:
    import rlstack.policy.layers as layers

    monkeypatch.setattr(layers, "policy_kernels", lambda policy: FusedKernels(swiglu=True))
    config = transformer_config(KNOWN_MODELS["Llama-3.1-8B"], Policy(model="m"))
    assert config.bias_activation_fusion
    # True would have the output layer demand Apex.
    assert not config.gradient_accumulation_fusion


def test_weight_gradients_are_fused_in_every_layer_that_can() -> None:
    able, unable = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    able.fuse_wgrad_accumulation = False  # type: ignore[assignment]
    assert fuse_weight_gradients(torch.nn.Sequential(able, unable)) == 1
    assert able.fuse_wgrad_accumulation is True
    assert not hasattr(unable, "fuse_wgrad_accumulation")


def parts(*overrides: str) -> dict[str, float]:
    demand = Demand(
        config=load_config(MATH, overrides),
        architecture=KNOWN_MODELS["Llama-3.1-8B"],
        gpu=gpu_of("h200"),
        assumptions=Assumptions(),
        intervals=(1, 10),
    )
    memory = policy_rank_memory(demand, Layout(data_parallel=8), stage=0)
    return {figure.name: figure.value for figure in memory.parts}


def test_fused_layers_keep_less() -> None:
    fused, plain = parts(), parts("policy.fusions=none")
    per_token = 32 * (2 * 14336 * 2 + 4 * 2 * 128)  # silu and up in bf16, cosines and sines
    assert plain["activations"] - fused["activations"] == 8192 * per_token
    # The four matrices of a layer, once, in bf16, with the norms of a layer.
    assert fused["stand-ins of gradients"] == 2 * (4096 * (6144 + 4096 + 3 * 14336) + 2 * 4096)
    assert "stand-ins of gradients" not in plain
