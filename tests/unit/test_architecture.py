"""What is read from config.json, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from transformers import LlamaConfig, MistralConfig, PreTrainedConfig, Qwen2Config, Qwen3Config

from rlstack.errors import ConfigError
from rlstack.model.architecture import Architecture
from rlstack.model.known_models import KNOWN_MODELS

SHAPE = {"hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 3}


def folder_of(tmp_path: Path, config: PreTrainedConfig, **changes: Any) -> Path:
    name = type(config).__name__.replace("Config", "ForCausalLM")
    settings = config.to_dict() | {"architectures": [name]} | changes
    (tmp_path / "config.json").write_text(json.dumps(settings))
    return tmp_path


@pytest.mark.parametrize(
    ("config", "head_dim", "qkv_bias", "qk_norm"),
    [
        (LlamaConfig(**SHAPE), 16, False, False),
        (MistralConfig(**SHAPE, sliding_window=None, head_dim=24), 24, False, False),
        (Qwen2Config(**SHAPE), 16, True, False),
        (Qwen3Config(**SHAPE), 128, False, True),
    ],
)
def test_reads_the_supported_families(tmp_path, config, head_dim, qkv_bias, qk_norm) -> None:
    found = Architecture.from_folder(folder_of(tmp_path, config))
    assert (found.num_layers, found.num_heads, found.num_kv_heads) == (3, 4, 2)
    assert (found.head_dim, found.qkv_bias, found.qk_norm) == (head_dim, qkv_bias, qk_norm)
    assert found.context_length == config.max_position_embeddings
    assert found.norm_eps == config.rms_norm_eps


def test_reads_the_older_names_of_the_rotary_embedding(tmp_path) -> None:
    folder = folder_of(
        tmp_path,
        LlamaConfig(),
        rope_parameters=None,
        rope_theta=5e5,
        rope_scaling={"type": "linear", "factor": 2},
    )
    found = Architecture.from_folder(folder)
    assert (found.rope_type, found.rope_theta) == ("linear", 5e5)


# As in their config.json files, with what says nothing about the shape left out.
PUBLISHED = {
    "Llama-2-7B": {
        "architectures": ["LlamaForCausalLM"],
        "hidden_act": "silu",
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "max_position_embeddings": 4096,
        "num_attention_heads": 32,
        "num_hidden_layers": 32,
        "num_key_value_heads": 32,
        "pretraining_tp": 1,
        "rms_norm_eps": 1e-05,
        "rope_scaling": None,
        "tie_word_embeddings": False,
        "torch_dtype": "float16",
        "vocab_size": 32000,
    },
    "Llama-3.1-8B": {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "hidden_act": "silu",
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "max_position_embeddings": 131072,
        "mlp_bias": False,
        "num_attention_heads": 32,
        "num_hidden_layers": 32,
        "num_key_value_heads": 8,
        "rms_norm_eps": 1e-05,
        "rope_scaling": {
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
            "rope_type": "llama3",
        },
        "rope_theta": 500000.0,
        "tie_word_embeddings": False,
        "vocab_size": 128256,
    },
    "Mistral-7B-v0.3": {
        "architectures": ["MistralForCausalLM"],
        "hidden_act": "silu",
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "max_position_embeddings": 32768,
        "num_attention_heads": 32,
        "num_hidden_layers": 32,
        "num_key_value_heads": 8,
        "rms_norm_eps": 1e-05,
        "rope_theta": 1000000.0,
        "sliding_window": None,
        "tie_word_embeddings": False,
        "vocab_size": 32768,
    },
    "Qwen2.5-7B": {
        "architectures": ["Qwen2ForCausalLM"],
        "dtype": "bfloat16",
        "hidden_act": "silu",
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "layer_types": ["full_attention"] * 28,
        "max_position_embeddings": 131072,
        "max_window_layers": 28,
        "num_attention_heads": 28,
        "num_hidden_layers": 28,
        "num_key_value_heads": 4,
        "rms_norm_eps": 1e-06,
        "rope_theta": 1000000.0,
        "sliding_window": 131072,
        "tie_word_embeddings": False,
        "use_mrope": False,
        "use_sliding_window": False,
        "vocab_size": 152064,
    },
    "Qwen3-0.6B": {
        "architectures": ["Qwen3ForCausalLM"],
        "attention_bias": False,
        "head_dim": 128,
        "hidden_act": "silu",
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "max_position_embeddings": 40960,
        "max_window_layers": 28,
        "num_attention_heads": 16,
        "num_hidden_layers": 28,
        "num_key_value_heads": 8,
        "rms_norm_eps": 1e-06,
        "rope_scaling": None,
        "rope_theta": 1000000,
        "sliding_window": None,
        "tie_word_embeddings": True,
        "use_sliding_window": False,
        "vocab_size": 151936,
    },
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_files_are_the_known_models(name: str) -> None:
    assert Architecture.from_settings(PUBLISHED[name], Path("config.json")) == KNOWN_MODELS[name]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"architectures": ["GPT2LMHeadModel"]}, "GPT2LMHeadModel.*LlamaForCausalLM"),
        ({"architectures": ["LlamaForCausalLM", "PeftModel"]}, "PeftModel"),
        ({"architectures": ["MixtralForCausalLM"], "num_local_experts": 8}, "a mixture of experts"),
        ({"architectures": ["Qwen3MoeForCausalLM"]}, "a mixture of experts"),
        ({"num_experts": 128}, r"a mixture of experts \(num_experts\)"),
        ({"architectures": ["Qwen2_5_VLForConditionalGeneration"]}, "multimodal"),
        ({"vision_config": {"depth": 32}}, r"multimodal model \(vision_config\)"),
        ({"architectures": ["LlamaForSequenceClassification"]}, "reward.models"),
        ({"quantization_config": {"quant_method": "fp8"}}, "quantised .*use the unquantised weights"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 2.0}}, "yarn"),
        ({"rope_parameters": {"rope_type": "longrope", "factor": 2.0}}, "longrope"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "dynamic"),
        ({"rope_scaling": {"type": "linear"}}, r"rope_parameters.factor = None"),
        ({"rope_parameters": {"rope_type": "llama3", "factor": 8.0}}, "low_freq_factor"),
        ({"rope_parameters": {"full_attention": {"rope_theta": 1e6}}}, "full_attention.*one for all layers"),
        ({"rope_parameters": {"rope_type": ["llama3"]}}, "rope_type"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor"),
        ({"attention_bias": True}, "attention_bias"),
        ({"mlp_bias": True}, "mlp_bias"),
        ({"attn_logit_softcapping": 50.0}, "attn_logit_softcapping"),
        ({"final_logit_softcapping": 30.0}, "final_logit_softcapping"),
        ({"use_sliding_window": True, "sliding_window": 1024}, "sliding_window = 1024.*lower max_position"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "sliding_attention"),
        ({"layer_types": ["linear_attention"]}, "linear_attention"),
        ({"layer_types": 3}, "layer_types"),
        ({"hidden_act": "gelu"}, "gelu"),
        ({"num_hidden_layers": None}, "num_hidden_layers"),
        ({"num_key_value_heads": 5}, "num_key_value_heads = 5.*a divisor of 32"),
    ],
)
def test_refuses_by_name_what_it_would_compute_wrongly(tmp_path, changes, named) -> None:
    with pytest.raises(ConfigError, match=named):
        Architecture.from_folder(folder_of(tmp_path, LlamaConfig(), **changes))


@pytest.mark.parametrize(
    ("config", "changes"),
    [
        (MistralConfig(**SHAPE), {"sliding_window": 4096}),
        (MistralConfig(**SHAPE), {"sliding_window": "absent"}),  # transformers then takes 4096
        (Qwen2Config(**SHAPE), {"use_sliding_window": True, "sliding_window": 4096}),
    ],
)
def test_a_sliding_window_is_refused_unless_no_sequence_outgrows_it(tmp_path, config, changes) -> None:
    folder = folder_of(tmp_path, config, max_position_embeddings=4097, **changes)
    if changes["sliding_window"] == "absent":
        settings = json.loads((folder / "config.json").read_text())
        del settings["sliding_window"]
        (folder / "config.json").write_text(json.dumps(settings))
    with pytest.raises(ConfigError, match=r"sliding_window = 4096 .* lower max_position_embeddings"):
        Architecture.from_folder(folder)
    settings = json.loads((folder / "config.json").read_text()) | {"max_position_embeddings": 4096}
    (folder / "config.json").write_text(json.dumps(settings))
    assert Architecture.from_folder(folder).context_length == 4096


def test_says_of_an_adapter_that_it_has_to_be_merged(tmp_path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    with pytest.raises(ConfigError, match=r"is an adapter .*merge it into its base model"):
        Architecture.from_folder(tmp_path)


@pytest.mark.parametrize("content", [None, "{", "[]"])
def test_refuses_a_folder_without_a_readable_config(tmp_path, content) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(ConfigError, match=r"config\.json"):
        Architecture.from_folder(tmp_path)


def test_imports_nothing_heavy() -> None:
    heavy = "{'torch', 'transformers'} & set(sys.modules)"
    program = f"import sys, rlstack.model.architecture; sys.exit(bool({heavy}))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
