"""The policy on Transformer Engine's modules: names, shapes, marks and Adam's state as the rest has them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from tests.gpu_static.environment import run

HERE = Path(__file__).parent
SHAPE: dict[str, Any] = {
    "num_layers": 2,
    "hidden_size": 256,
    "num_heads": 4,
    "num_kv_heads": 2,
    "head_dim": 64,
    "ffn_size": 512,
    "vocab_size": 1000,  # padded to 1024
    "context_length": 128,
    "norm_eps": 1e-6,
    "rope_type": "default",
    "rope_theta": 1e4,
}
FAMILIES = {
    "LlamaForCausalLM": {"tied": False, "qkv_bias": False, "qk_norm": False},
    "Qwen2ForCausalLM": {"tied": True, "qkv_bias": True, "qk_norm": False},
    "Qwen3ForCausalLM": {"tied": False, "qkv_bias": False, "qk_norm": True},
}
BF16, FP8 = {"precision": "bf16"}, {"precision": "fp8"}
SPLIT = {"tensor_parallel": 2, "sequence_parallel": True}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "bf16": ("Qwen3ForCausalLM", BF16),
    "split": ("Qwen2ForCausalLM", BF16 | SPLIT),
    "blockwise": ("LlamaForCausalLM", FP8 | {"fp8": {"recipe": "blockwise", "bf16_layers_at_start": 1}}),
    "delayed": ("Qwen3ForCausalLM", FP8 | {"fp8": {"recipe": "delayed"}}),
}
OF_TRANSFORMER_ENGINE = {"TELayerNormColumnParallelLinear", "TERowParallelLinear", "TEDotProductAttention"}
# Each in a branch of megatron-core's for other versions, or in a `try`.
OLD_NAMES = [
    "transformer_engine.pytorch.attention._SplitAlongDim",
    "transformer_engine.pytorch.attention.apply_rotary_pos_emb",
    "transformer_engine.pytorch.cpp_extensions.cast_to_fp8",
    "transformer_engine.pytorch.module.base.get_workspace",
]


@pytest.mark.parametrize("case", CASES)
def test_weights_marks_and_adam_are_what_the_rest_relies_on(case: str, engine: Path, tmp_path: Path) -> None:
    family, policy = CASES[case]
    architecture = SHAPE | FAMILIES[family] | {"family": family}
    job = tmp_path / "job.json"
    job.write_text(json.dumps({"policy": policy, "architecture": architecture}))
    found = json.loads(run(HERE / "te_job.py", job, paths=(engine, HERE)).splitlines()[-1])
    assert set(found["modules"]) >= OF_TRANSFORMER_ENGINE
    assert found["fused"] == [True, True]
    assert found["adding_to_main_grad"] == ["TELayerNormColumnParallelLinear", "TERowParallelLinear"]
    assert found["fp8"][0] == ("e4m3" if case == "blockwise" else "hybrid" if case == "delayed" else None)
    quantised = {"blockwise": [1], "delayed": [0, 1]}.get(case, [])
    assert set(found["quantised"]) == linears(layers=quantised)
    assert found["dtypes"] == ["torch.bfloat16"]
    shapes: dict[str, list[int]] = found["shapes"]
    repeated = {"output_layer.weight"} if architecture["tied"] else set()
    assert shapes == {name: shape for name, shape in found["expected_shapes"].items() if name not in repeated}
    norms = {name for name in shapes if "norm" in name}
    assert set(found["cut"]) == shapes.keys() - norms
    of_rows = {name for name in norms if "q_layernorm" not in name and "k_layernorm" not in name}
    assert set(found["of_sequence_parallel"]) == (of_rows if policy.get("sequence_parallel") else set())
    assert found["num_saved"] == len(shapes)
    assert found["num_sent"] == sum(num_elements(name, shape) for name, shape in shapes.items())
    assert found["adam"].startswith("transformer_engine.")
    assert (found["moments"], found["moments_dtypes"]) == (["exp_avg", "exp_avg_sq"], ["torch.float32"])


def linears(*, layers: list[int]) -> set[str]:
    """Hugging Face names of the weights of linear layers, which an engine in FP8 quantises too."""
    names = [f"self_attn.{x}_proj" for x in "qkvo"] + [f"mlp.{x}_proj" for x in ("gate", "up", "down")]
    return {f"model.layers.{layer}.{name}.weight" for layer in layers for name in names}


def num_elements(name: str, shape: list[int]) -> int:
    """Of a parameter of the first rank, without its padding."""
    rows = min(shape[0], SHAPE["vocab_size"]) if name.startswith(("embedding", "output")) else shape[0]
    return rows * math.prod(shape[1:])


def test_all_that_megatron_takes_of_transformer_engine_is_there(engine: Path) -> None:
    found = json.loads(run(HERE / "te_names_job.py", paths=(engine, HERE)).splitlines()[-1])
    assert found["num_names"] > 80
    assert found["missing"] == OLD_NAMES
