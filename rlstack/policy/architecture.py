"""The shape of a dense decoder-only model, read from a Hugging Face folder's config.json.

Imports neither torch nor transformers: the settings are checked against it before anything heavy starts.
"""

from __future__ import annotations

import json
import reprlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlstack.errors import ConfigError

FAMILIES = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")
# The rotary embeddings that are a table of inverse frequencies and nothing more: no factor on the attention.
ROPE_TYPES = ("default", "linear", "llama3")


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """What the policy, the name map and the checks of the layout need to know of a model."""

    family: str  # the class in transformers, one of FAMILIES
    num_layers: int
    hidden_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    ffn_size: int
    vocab_size: int
    context_length: int  # tokens
    norm_eps: float
    rope_type: str  # one of ROPE_TYPES
    rope_theta: float
    tied: bool  # the output layer is the embedding
    qkv_bias: bool
    qk_norm: bool

    @classmethod
    def from_folder(cls, folder: Path) -> Architecture:
        """Read `folder`/config.json.

        Raises ConfigError if it is missing or malformed, or if the model is not of a supported family.
        """
        path = Path(folder) / "config.json"
        try:
            settings = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ConfigError(
                f"policy.model = {folder}: there is no config.json; give a Hugging Face folder"
            ) from None
        except (OSError, ValueError, RecursionError) as error:
            raise ConfigError(f"{path}: cannot be read as JSON ({error})") from None
        return cls.from_settings(settings, path)

    @classmethod
    def from_settings(cls, settings: Any, path: Path) -> Architecture:
        """As `from_folder`, from the parsed file; `path` is named in errors."""
        if not isinstance(settings, dict):
            raise ConfigError(f"{path}: is not a JSON object")
        family = _family(settings, path)
        _refuse_unsupported(settings, family, path)
        rope = _section(settings, ("rope_parameters", "rope_scaling"), path)
        hidden_size, num_heads = (
            _positive(settings, key, path) for key in ("hidden_size", "num_attention_heads")
        )
        usual_head_dim = 128 if family.startswith("Qwen3") else hidden_size // num_heads
        architecture = cls(
            family=family,
            num_layers=_positive(settings, "num_hidden_layers", path),
            hidden_size=hidden_size,
            num_heads=num_heads,
            num_kv_heads=_positive(settings, "num_key_value_heads", path, default=num_heads),
            head_dim=_positive(settings, "head_dim", path, default=usual_head_dim),
            ffn_size=_positive(settings, "intermediate_size", path),
            vocab_size=_positive(settings, "vocab_size", path),
            context_length=_positive(settings, "max_position_embeddings", path),
            norm_eps=_number(settings, "rms_norm_eps", path, default=1e-6),
            rope_type=rope.get("rope_type") or rope.get("type") or "default",
            rope_theta=_number(rope if rope.get("rope_theta") else settings, "rope_theta", path, default=1e4),
            tied=bool(settings.get("tie_word_embeddings", False)),
            qkv_bias=family == "Qwen2ForCausalLM",
            qk_norm=family == "Qwen3ForCausalLM",
        )
        if architecture.rope_type not in ROPE_TYPES:
            raise _unsupported(path, "rope_type", architecture.rope_type, " | ".join(ROPE_TYPES))
        return architecture


def _family(settings: dict[str, Any], path: Path) -> str:
    names = settings.get("architectures")
    if not isinstance(names, list) or len(names) != 1 or names[0] not in FAMILIES:
        raise _unsupported(path, "architectures", names, " | ".join(FAMILIES))
    return str(names[0])


def _refuse_unsupported(settings: dict[str, Any], family: str, path: Path) -> None:
    """Refuse what the policy would compute differently from transformers without any error."""
    if settings.get("hidden_act", "silu") != "silu":
        raise _unsupported(path, "hidden_act", settings["hidden_act"], "silu")
    for key in ("attention_bias", "mlp_bias", "use_sliding_window"):
        if settings.get(key):
            raise _unsupported(path, key, settings[key], "false")
    if family == "MistralForCausalLM" and settings.get("sliding_window") is not None:
        raise _unsupported(path, "sliding_window", settings["sliding_window"], "null")
    if settings.get("quantization_config"):
        raise _unsupported(path, "quantization_config", "set", "unquantised weights")


def _positive(settings: dict[str, Any], key: str, path: Path, *, default: int | None = None) -> int:
    value = settings.get(key) or default
    if type(value) is not int or value < 1:
        raise _unsupported(path, key, value, "a positive integer")
    return value


def _number(settings: dict[str, Any], key: str, path: Path, *, default: float) -> float:
    value = settings.get(key) or default
    if type(value) not in (int, float) or not 0 < value <= sys.float_info.max:
        raise _unsupported(path, key, value, "a positive number")
    return float(value)


def _section(settings: dict[str, Any], keys: Sequence[str], path: Path) -> dict[str, Any]:
    """The first of `keys` that is given; {} without one."""
    for key in keys:
        if value := settings.get(key):
            if not isinstance(value, dict):
                raise _unsupported(path, key, value, "an object")
            return value
    return {}


def _unsupported(path: Path, key: str, given: object, accepted: str) -> ConfigError:
    return ConfigError(
        f"{path}: {key} = {reprlib.repr(given)} is not supported; accepted: {accepted}. Use another model."
    )
