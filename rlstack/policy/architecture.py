"""The shape of a dense decoder-only model, read from a Hugging Face folder's config.json.

Imports neither torch nor transformers: the settings are checked against it before anything heavy starts.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlstack.config.model_files import CONFIG, read_object, refuse_damaged
from rlstack.config.urls import is_url, refusal
from rlstack.errors import ConfigError
from rlstack.policy.unsupported import refuse_unsupported, rope_type, rotary_settings, unsupported

# Beyond any model that there is; what counts layers or heads would be busy for hours.
LARGEST = {
    "num_hidden_layers": 512,
    "num_attention_heads": 4_096,
    "num_key_value_heads": 4_096,
    "head_dim": 65_536,
    "hidden_size": 1 << 20,
    "intermediate_size": 1 << 24,
    "vocab_size": 1 << 24,
    "max_position_embeddings": 1 << 30,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """What the policy, the name map and the checks of the layout need to know of a model."""

    family: str  # the class in transformers, one of unsupported.FAMILIES
    num_layers: int
    hidden_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    ffn_size: int
    vocab_size: int
    context_length: int  # tokens
    norm_eps: float
    rope_type: str  # one of unsupported.ROPE_TYPES
    rope_theta: float
    tied: bool  # the output layer is the embedding
    qkv_bias: bool
    qk_norm: bool

    @classmethod
    def from_folder(cls, folder: Path) -> Architecture:
        """Read `folder`/config.json.

        Raises ConfigError if it is missing or malformed, or if the model is not of a supported family.
        """
        if is_url(str(folder)):
            raise ConfigError(refusal("policy.model", str(folder)))
        path = Path(folder) / CONFIG
        if not path.exists():
            raise ConfigError(_no_config(Path(folder)))
        refuse_damaged(Path(folder), (CONFIG,), setting="policy.model")
        return cls.from_settings(read_object(path), path)

    @classmethod
    def from_settings(cls, settings: Any, path: Path) -> Architecture:
        """As `from_folder`, from the parsed file; `path` is named in errors."""
        if not isinstance(settings, dict):
            raise ConfigError(f"{path}: is not a JSON object")
        refuse_unsupported(settings, path)
        (family,) = settings["architectures"]
        rope = rotary_settings(settings)
        hidden_size, num_heads = (
            _size(settings, key, path) for key in ("hidden_size", "num_attention_heads")
        )
        num_kv_heads = _size(settings, "num_key_value_heads", path, default=num_heads)
        if num_heads % num_kv_heads:
            raise unsupported(path, "num_key_value_heads", num_kv_heads, f"a divisor of {num_heads} heads")
        usual_head_dim = 128 if family.startswith("Qwen3") else hidden_size // num_heads
        return cls(
            family=family,
            num_layers=_size(settings, "num_hidden_layers", path),
            hidden_size=hidden_size,
            num_heads=num_heads,
            num_kv_heads=num_kv_heads,
            head_dim=_size(settings, "head_dim", path, default=usual_head_dim),
            ffn_size=_size(settings, "intermediate_size", path),
            vocab_size=_size(settings, "vocab_size", path),
            context_length=_size(settings, "max_position_embeddings", path),
            norm_eps=_number(settings, "rms_norm_eps", path, default=1e-6),
            rope_type=rope_type(rope),
            rope_theta=_number(rope if rope.get("rope_theta") else settings, "rope_theta", path, default=1e4),
            tied=bool(settings.get("tie_word_embeddings", False)),
            qkv_bias=family == "Qwen2ForCausalLM",
            qk_norm=family == "Qwen3ForCausalLM",
        )


def _no_config(folder: Path) -> str:
    if (folder / "adapter_config.json").is_file():
        return (
            f"policy.model = {folder}: is an adapter (adapter_config.json), not a whole model; merge it into "
            f"its base model, with PEFT's merge_and_unload(), and give the folder of the result"
        )
    return f"policy.model = {folder}: there is no config.json; give a Hugging Face folder"


def _size(settings: dict[str, Any], key: str, path: Path, *, default: int | None = None) -> int:
    value = settings.get(key) or default
    if type(value) is not int or not 1 <= value <= LARGEST[key]:
        raise unsupported(path, key, value, f"a positive integer, at most {LARGEST[key]:,}")
    return value


def _number(settings: dict[str, Any], key: str, path: Path, *, default: float) -> float:
    value = settings.get(key) or default
    if type(value) not in (int, float) or not 0 < value <= sys.float_info.max:
        raise unsupported(path, key, value, "a positive number")
    return float(value)
