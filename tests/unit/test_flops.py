"""The FLOPs of a model against those that torch counts in transformers' model of the same shape."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
)

from rlstack.model.architecture import Architecture
from rlstack.model.flops import ModelFlops
from rlstack.model.known_models import KNOWN_MODELS

SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 101,
    "max_position_embeddings": 64,
}
CONFIGS = {
    "LlamaForCausalLM": LlamaConfig(**SHAPE),
    "MistralForCausalLM": MistralConfig(**SHAPE, sliding_window=None),
    "Qwen2ForCausalLM": Qwen2Config(**SHAPE, tie_word_embeddings=True),
    "Qwen3ForCausalLM": Qwen3Config(**SHAPE, head_dim=24),
}


def counted(config: PreTrainedConfig, num_tokens: int) -> tuple[int, int]:
    """FLOPs of the forward and of the backward pass of one sequence, rotary embeddings left out.

    With plain matrix products the counter sees all pairs of a query and a key, also those that are masked.
    """
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    model.requires_grad_(True)
    tokens = torch.zeros(1, num_tokens, dtype=torch.int64)
    with FlopCounterMode(display=False) as forward:
        logits = model(tokens).logits
    with FlopCounterMode(display=False) as backward:
        logits.sum().backward()
    rotary = sum(
        sum(operations.values())
        for module, operations in forward.get_flop_counts().items()
        if module.endswith("rotary_emb")
    )
    return forward.get_total_flops() - rotary, backward.get_total_flops()


@pytest.mark.parametrize("family", CONFIGS)
def test_flops_are_those_that_torch_counts_with_half_of_the_scores(family: str) -> None:
    settings = json.loads(CONFIGS[family].to_json_string(use_diff=False)) | {"architectures": [family]}
    flops = ModelFlops.of(Architecture.from_settings(settings, Path(family)))
    for num_tokens in (1, 17, 40):
        masked = flops.attention * num_tokens**2  # as many as those that are not
        forward, backward = counted(CONFIGS[family], num_tokens)
        assert forward == flops.forward(num_tokens) + masked
        assert forward + backward == flops.training(flops.forward(num_tokens) + masked)


def test_sequences_do_not_see_each_other() -> None:
    flops = ModelFlops(matrices=10, attention_width=3)
    assert flops.forward_of([4, 6]) == 2 * 10 * 10 + 2 * 3 * (16 + 36)


def test_llama_8b_as_published() -> None:
    """All weights but the embedding and the norms; 4 * layers * heads * head_dim * t / 2 of attention."""
    flops = ModelFlops.of(KNOWN_MODELS["Llama-3.1-8B"])
    assert flops.matrices == 8_030_261_248 - 128_256 * 4096 - 65 * 4096
    assert flops.attention == 4 * 32 * 4096 // 2
