"""The shape of a dense decoder-only model, read from a Hugging Face folder's config.json.

A model that the policy would compute differently from transformers, silently, is refused by name.
Imports neither torch nor transformers: the settings are checked against it before anything heavy starts.
"""

from __future__ import annotations

import reprlib
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlstack.errors import ConfigError
from rlstack.model.files import CONFIG, read_object, refuse_damaged
from rlstack.urls import is_url, refusal

FAMILIES = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")
# The rotary embeddings that are a table of inverse frequencies and nothing more: no factor on the attention,
# no other table for longer sequences. With the numbers that each needs.
ROPE_TYPES: Mapping[str, tuple[str, ...]] = {
    "default": (),
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
}

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

# Kinds of models by a setting that is there, or by a part of the class's name.
_KINDS = {
    "a mixture of experts": (
        ("num_experts", "num_local_experts", "n_routed_experts", "moe_intermediate_size"),
        ("Moe", "MoE", "Mixtral", "DeepseekV"),
    ),
    "a vision or multimodal model": (
        ("vision_config", "audio_config", "text_config", "thinker_config"),
        ("ForConditionalGeneration", "VL", "Vision", "Omni"),
    ),
    "quantised": (("quantization_config", "compression_config"), ()),
    "a model with one score, which reward.models can name": ((), ("ForSequenceClassification",)),
    "a mixture of attention and state-space layers": (
        ("mamba_d_state", "ssm_cfg", "linear_num_value_heads"),
        ("Mamba", "Jamba", "Qwen3Next"),
    ),
}
_REMEDIES = {"quantised": "use the unquantised weights that it was made of"}

# What a setting may be; left out is fine everywhere.
_ACCEPTED: Mapping[str, tuple[object, ...]] = {
    "hidden_act": ("silu",),
    "attention_bias": (False, None),
    "mlp_bias": (False, None),
    "partial_rotary_factor": (1, None),
    "attn_logit_softcapping": (None,),
    "final_logit_softcapping": (None,),
}
_DEFAULT_WINDOW = 4096  # tokens; transformers' where the file does not say


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """The properties of a model that the policy, the name map and the layout's checks need."""

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
        _refuse_unsupported(settings, path)
        (family,) = settings["architectures"]
        rope = _rotary_settings(settings)
        hidden_size, num_heads = (
            _size(settings, key, path) for key in ("hidden_size", "num_attention_heads")
        )
        num_kv_heads = _size(settings, "num_key_value_heads", path, default=num_heads)
        if num_heads % num_kv_heads:
            raise _unsupported(path, "num_key_value_heads", num_kv_heads, f"a divisor of {num_heads} heads")
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
            rope_type=_rope_type(rope),
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
        raise _unsupported(path, key, value, f"a positive integer, at most {LARGEST[key]:,}")
    return value


def _number(settings: dict[str, Any], key: str, path: Path, *, default: float) -> float:
    value = settings.get(key) or default
    if type(value) not in (int, float) or not 0 < value <= sys.float_info.max:
        raise _unsupported(path, key, value, "a positive number")
    return float(value)


def _refuse_unsupported(settings: Mapping[str, Any], path: Path) -> None:
    """Raise ConfigError for what the file `path`, of which `settings` is the content, asks for in vain."""
    for problem in _problems(settings):
        raise ConfigError(f"{path}: {problem}")


def _unsupported(path: Path, key: str, given: object, accepted: str) -> ConfigError:
    """What to raise for a setting of a model."""
    return ConfigError(f"{path}: {_not_supported(key, given, accepted)}")


def _problems(settings: Mapping[str, Any]) -> Iterator[str]:
    names = settings.get("architectures")
    yield from _kinds(settings, str(names))
    if not isinstance(names, list) or len(names) != 1 or names[0] not in FAMILIES:
        yield _not_supported("architectures", names, " | ".join(FAMILIES))
        return
    for key, accepted in _ACCEPTED.items():
        if (given := settings.get(key, accepted[0])) not in accepted:
            yield _not_supported(key, given, str(accepted[0]))
    yield from _rotary(settings)
    yield from _windows(settings, names[0])


def _kinds(settings: Mapping[str, Any], names: str) -> Iterator[str]:
    for kind, (keys, parts) in _KINDS.items():
        found = [key for key in keys if settings.get(key)] or [part for part in parts if part in names]
        if found:
            remedy = _REMEDIES.get(kind, f"use a dense text model: {' | '.join(FAMILIES)}")
            yield f"{names} is {kind} ({found[0]}), which is not supported; {remedy}"


def _rotary(settings: Mapping[str, Any]) -> Iterator[str]:
    rope = _rotary_settings(settings)
    if not isinstance(rope, Mapping):
        yield _not_supported("rope_parameters", rope, "an object")
        return
    if nested := [key for key, value in rope.items() if isinstance(value, Mapping)]:
        yield _not_supported(f"rope_parameters.{nested[0]}", rope[nested[0]], "one for all layers")
    kind = _rope_type(rope)
    if not isinstance(kind, str) or kind not in ROPE_TYPES:
        yield _not_supported("rope_type", kind, " | ".join(ROPE_TYPES))
        return
    for key in ROPE_TYPES[kind]:
        if not _is_positive(given := rope.get(key)):
            yield _not_supported(f"rope_parameters.{key}", given, f"a positive number with rope_type {kind}")
    if (factor := rope.get("partial_rotary_factor", 1)) != 1:
        yield _not_supported("partial_rotary_factor", factor, "1")


def _is_positive(value: Any) -> bool:
    return type(value) in (int, float) and value > 0


def _rotary_settings(settings: Mapping[str, Any]) -> Any:
    """Those of the rotary embedding, an object; the older name counts first, as in transformers."""
    return settings.get("rope_scaling") or settings.get("rope_parameters") or {}


def _rope_type(rope: Mapping[str, Any]) -> Any:
    return rope.get("rope_type") or rope.get("type") or "default"


def _windows(settings: Mapping[str, Any], family: str) -> Iterator[str]:
    """A window that no sequence outgrows changes nothing, and is accepted."""
    window, context = None, settings.get("max_position_embeddings")
    if family == "MistralForCausalLM" or settings.get("use_sliding_window"):
        window = settings.get("sliding_window", _DEFAULT_WINDOW)
    if window is not None and not (type(window) is type(context) is int and window >= context):
        yield (
            f"sliding_window = {reprlib.repr(window)} is not supported; accepted: null, or at least "
            f"max_position_embeddings, which is {reprlib.repr(context)}. Use another model, or lower "
            f"max_position_embeddings to the window if no sequence is longer"
        )
    types = settings.get("layer_types") or ["full_attention"]
    if not isinstance(types, list) or set(map(str, types)) != {"full_attention"}:
        yield _not_supported("layer_types", types, "full_attention for every layer")


def _not_supported(key: str, given: object, accepted: str) -> str:
    return f"{key} = {reprlib.repr(given)} is not supported; accepted: {accepted}. Use another model."
