"""Models that are refused by name: the policy would compute them differently from transformers, silently.

Imports neither torch nor transformers, as architecture.py, which says what is supported.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rlstack.errors import ConfigError

FAMILIES = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")
# The rotary embeddings that are a table of inverse frequencies and nothing more: no factor on the attention,
# no other table for longer sequences. With the numbers that each needs.
ROPE_TYPES: Mapping[str, tuple[str, ...]] = {
    "default": (),
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
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


def refuse_unsupported(settings: Mapping[str, Any], path: Path) -> None:
    """Raise ConfigError for what the file `path`, of which `settings` is the content, asks for in vain."""
    for problem in _problems(settings):
        raise ConfigError(f"{path}: {problem}")


def unsupported(path: Path, key: str, given: object, accepted: str) -> ConfigError:
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
    rope = rotary_settings(settings)
    if not isinstance(rope, Mapping):
        yield _not_supported("rope_parameters", rope, "an object")
        return
    if nested := [key for key, value in rope.items() if isinstance(value, Mapping)]:
        yield _not_supported(f"rope_parameters.{nested[0]}", rope[nested[0]], "one for all layers")
    kind = rope_type(rope)
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


def rotary_settings(settings: Mapping[str, Any]) -> Any:
    """Those of the rotary embedding, an object; the older name counts first, as in transformers."""
    return settings.get("rope_scaling") or settings.get("rope_parameters") or {}


def rope_type(rope: Mapping[str, Any]) -> Any:
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
