"""How megatron-core's parameters and Hugging Face's tensors name and cut the same weights.

A parameter of a rank is a fusion of slices of Hugging Face tensors, each cut along one dimension over the
tensor-parallel ranks. One table says which; loading, exporting and the transfer all read it. Names and shapes
only: `rlstack.policy.hf_map` puts tensors together by it.

Left out: mixtures of experts and biases other than those of query, key and value.
Letters: H hidden size, F ffn size, V vocabulary size, D head dimension, n heads, g key-value heads, TP ranks.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from rlstack.model.architecture import Architecture

# Rows of the embedding are padded to a multiple of this per rank of the policy, for the tensor cores' sake.
VOCAB_MULTIPLE = 128

_LAYER = re.compile(r"decoder\.layers\.(\d+)\.(.+)")
# Transformer Engine fuses a norm with the linear layer that follows it, and the name goes with it.
_FUSED_NORMS = {
    "self_attention.linear_qkv.layer_norm_weight": "input_layernorm.weight",
    "mlp.linear_fc1.layer_norm_weight": "pre_mlp_layernorm.weight",
}


class Fusion(Enum):
    """How the slices make one parameter."""

    none = "one tensor"
    qkv = "per key-value head: its queries, its key, its value"
    gate_up = "gate above up"


@dataclass(frozen=True, slots=True)
class Part:
    """One Hugging Face tensor: its name, its whole shape and the dimension that is cut over TP."""

    name: str
    shape: tuple[int, ...]
    cut: int | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """The parts of one parameter of megatron."""

    parts: tuple[Part, ...]
    fusion: Fusion = Fusion.none
    padded: bool = False  # dimension 0 is the vocabulary, with padding


def padded_vocab_size(architecture: Architecture, tp_size: int) -> int:
    """V rounded up so that every rank holds a multiple of VOCAB_MULTIPLE rows."""
    multiple = VOCAB_MULTIPLE * tp_size
    return math.ceil(architecture.vocab_size / multiple) * multiple


def stage_rules(architecture: Architecture, layers: Sequence[range] | None = None) -> dict[str, Rule]:
    """The parameters of a pipeline stage in a fixed order, by name (layers counted from the model's first).

    A tied output layer is listed too: pipelines of several stages hold it twice.

    layers: what the stage holds, as in one item of `rlstack.config.parallel.stage_layers`; None: all.
    """
    held = [layer for run in layers or [range(architecture.num_layers)] for layer in run]
    rules: dict[str, Rule] = {}
    if held[0] == 0:
        rules["embedding.word_embeddings.weight"] = _vocab_rule(architecture, "model.embed_tokens.weight")
    for layer in held:
        rules |= _layer_rules(architecture, layer)
    if held[-1] == architecture.num_layers - 1:
        hidden = (architecture.hidden_size,)
        rules["decoder.final_layernorm.weight"] = Rule((Part("model.norm.weight", hidden),))
        name = "model.embed_tokens.weight" if architecture.tied else "lm_head.weight"
        rules["output_layer.weight"] = _vocab_rule(architecture, name)
    return rules


def wire_rules(architecture: Architecture, layers: Sequence[range] | None = None) -> dict[str, Rule]:
    """`stage_rules` without repetitions: over all stages every Hugging Face tensor comes once."""
    rules = stage_rules(architecture, layers)
    if architecture.tied:
        rules.pop("output_layer.weight", None)
    return rules


def global_name(name: str, first_layer: int) -> str:
    """The name in `stage_rules` of a parameter of a chunk, built from the local or the other spec.

    first_layer: the number, from 0 in the whole model, of the chunk's first layer.
    """
    match = _LAYER.fullmatch(name)
    if match is None:
        return name
    return f"decoder.layers.{int(match[1]) + first_layer}.{_FUSED_NORMS.get(match[2], match[2])}"


def slice_bounds(part: Part, rule: Rule, architecture: Architecture, *, tp_rank: int, tp_size: int) -> slice:
    """This rank's slice of `part` along `part.cut`; shorter, or empty, where the rest is padding."""
    assert part.cut is not None
    size = part.shape[part.cut]
    width = (padded_vocab_size(architecture, tp_size) if rule.padded else size) // tp_size
    return slice(min(tp_rank * width, size), min((tp_rank + 1) * width, size))


def shard_shape(rule: Rule, architecture: Architecture, *, tp_size: int) -> tuple[int, ...]:
    """The shape of one rank's parameter, padding included."""
    slices = []
    for part in rule.parts:
        shape = list(part.shape)
        if rule.padded:
            shape[0] = padded_vocab_size(architecture, tp_size)
        if part.cut is not None:
            shape[part.cut] //= tp_size
        slices.append(shape)
    return (sum(shape[0] for shape in slices), *slices[0][1:])


def _vocab_rule(architecture: Architecture, name: str) -> Rule:
    return Rule((Part(name, (architecture.vocab_size, architecture.hidden_size), cut=0),), padded=True)


def _layer_rules(architecture: Architecture, layer: int) -> dict[str, Rule]:
    hidden, ffn, head_dim = architecture.hidden_size, architecture.ffn_size, architecture.head_dim
    query_rows, key_rows = architecture.num_heads * head_dim, architecture.num_kv_heads * head_dim
    here, there = f"decoder.layers.{layer}.", f"model.layers.{layer}."

    def whole(name: str, size: int) -> Rule:
        return Rule((Part(there + name, (size,)),))

    def qkv(suffix: str, *columns: int) -> Rule:
        rows = {"q": query_rows, "k": key_rows, "v": key_rows}
        parts = (Part(f"{there}self_attn.{x}_proj.{suffix}", (n, *columns), cut=0) for x, n in rows.items())
        return Rule(tuple(parts), Fusion.qkv)

    gate_up = (Part(f"{there}mlp.{x}_proj.weight", (ffn, hidden), cut=0) for x in ("gate", "up"))
    rules = {
        "input_layernorm.weight": whole("input_layernorm.weight", hidden),
        "self_attention.linear_qkv.weight": qkv("weight", hidden),
        "self_attention.linear_proj.weight": Rule(
            (Part(there + "self_attn.o_proj.weight", (hidden, query_rows), cut=1),)
        ),
        "pre_mlp_layernorm.weight": whole("post_attention_layernorm.weight", hidden),
        "mlp.linear_fc1.weight": Rule(tuple(gate_up), Fusion.gate_up),
        "mlp.linear_fc2.weight": Rule((Part(there + "mlp.down_proj.weight", (hidden, ffn), cut=1),)),
    }
    if architecture.qkv_bias:
        rules["self_attention.linear_qkv.bias"] = qkv("bias")
    if architecture.qk_norm:
        rules["self_attention.q_layernorm.weight"] = whole("self_attn.q_norm.weight", head_dim)
        rules["self_attention.k_layernorm.weight"] = whole("self_attn.k_norm.weight", head_dim)
    return {here + name: rule for name, rule in rules.items()}
