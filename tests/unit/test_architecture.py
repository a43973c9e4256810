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
from rlstack.policy.architecture import Architecture

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


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"architectures": ["GPT2LMHeadModel"]}, "GPT2LMHeadModel"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 2.0}}, "yarn"),
        ({"attention_bias": True}, "attention_bias"),
        ({"mlp_bias": True}, "mlp_bias"),
        ({"hidden_act": "gelu"}, "gelu"),
        ({"num_hidden_layers": None}, "num_hidden_layers"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
    ],
)
def test_refuses_by_name_what_it_would_compute_wrongly(tmp_path, changes, named) -> None:
    with pytest.raises(ConfigError, match=named):
        Architecture.from_folder(folder_of(tmp_path, LlamaConfig(), **changes))


@pytest.mark.parametrize("content", [None, "{", "[]"])
def test_refuses_a_folder_without_a_readable_config(tmp_path, content) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(ConfigError, match=r"config\.json"):
        Architecture.from_folder(tmp_path)


def test_imports_nothing_heavy() -> None:
    heavy = "{'torch', 'transformers'} & set(sys.modules)"
    program = f"import sys, rlstack.policy.architecture; sys.exit(bool({heavy}))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
