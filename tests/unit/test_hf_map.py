"""The name map: cutting and fusing over any number of ranks, and back."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from rlstack.config.parallel import stage_layers
from rlstack.model.architecture import Architecture
from rlstack.model.weight_names import global_name, slice_bounds, stage_rules, wire_rules
from rlstack.policy.hf_map import fuse, join

LLAMA = Architecture(
    family="LlamaForCausalLM",
    num_layers=4,
    hidden_size=8,
    num_heads=8,
    num_kv_heads=4,
    head_dim=3,
    ffn_size=20,
    vocab_size=133,
    context_length=64,
    norm_eps=1e-6,
    rope_type="default",
    rope_theta=1e4,
    tied=False,
    qkv_bias=False,
    qk_norm=False,
)
ARCHITECTURES = {
    "llama": LLAMA,
    "qwen2_tied": replace(LLAMA, tied=True, qkv_bias=True),
    "qwen3": replace(LLAMA, qk_norm=True),
}


@pytest.mark.parametrize("tp_size", [1, 2, 4])
@pytest.mark.parametrize("architecture", ARCHITECTURES.values(), ids=ARCHITECTURES)
def test_cut_fused_and_joined_is_bit_equal(architecture, tp_size) -> None:
    for rule in stage_rules(architecture).values():
        tensors = {part.name: torch.randn(part.shape) for part in rule.parts}
        shards = []
        for tp_rank in range(tp_size):
            slices = []
            for part in rule.parts:
                tensor = tensors[part.name]
                if part.cut is not None:
                    bounds = slice_bounds(part, rule, architecture, tp_rank=tp_rank, tp_size=tp_size)
                    tensor = tensor.transpose(0, part.cut)[bounds].transpose(0, part.cut)
                slices.append(tensor)
            shards.append(fuse(rule, slices, architecture, tp_size=tp_size))
        assert len({shard.shape for shard in shards}) == 1
        joined = dict(join(rule, shards, architecture))
        assert joined.keys() == tensors.keys()
        assert all(torch.equal(joined[name], tensors[name]) for name in tensors)


def test_qkv_is_ordered_by_key_value_head() -> None:
    rule = stage_rules(LLAMA)["decoder.layers.0.self_attention.linear_qkv.weight"]
    query, key, value = (torch.full(part.shape, float(i)) for i, part in enumerate(rule.parts))
    fused = fuse(rule, [query, key, value], LLAMA, tp_size=1)
    head = [0.0] * 6 + [1.0] * 3 + [2.0] * 3  # two queries, one key, one value of head_dim 3
    assert fused[:, 0].tolist() == head * 4


@pytest.mark.parametrize("num_stages", [1, 2, 4])
@pytest.mark.parametrize("architecture", ARCHITECTURES.values(), ids=ARCHITECTURES)
def test_over_all_stages_every_tensor_comes_once(architecture, num_stages) -> None:
    def names(count: int) -> list[str]:
        stages = stage_layers(architecture.num_layers, num_stages=count)
        rules = [wire_rules(architecture, layers) for layers in stages]
        return [part.name for stage in rules for rule in stage.values() for part in rule.parts]

    assert names(num_stages) == names(1)
    assert len(set(names(1))) == len(names(1))
    assert ("lm_head.weight" in names(1)) != architecture.tied


def test_names_of_both_specs_and_of_later_stages_are_understood() -> None:
    fused = "decoder.layers.1.self_attention.linear_qkv.layer_norm_weight"
    assert global_name(fused, 2) == "decoder.layers.3.input_layernorm.weight"
    assert (
        global_name("decoder.layers.0.mlp.linear_fc2.weight", 2) == "decoder.layers.2.mlp.linear_fc2.weight"
    )
    assert global_name("output_layer.weight", 2) == "output_layer.weight"
