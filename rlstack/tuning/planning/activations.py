"""What the forward pass of one packed micro-batch keeps for the backward pass, tensor by tensor.

The count is that of Korthikanti et al. 2022 (arXiv 2205.05198, section 4) for SwiGLU, grouped queries, rotary
embeddings and an attention that keeps no scores. Transformer Engine's layers are counted from its source
(layernorm_linear.py, linear.py, context_parallel.py of 2.20); megatron-core's local ones, which the CPU has,
keep a little more, and tests measure it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from rlstack.config.schema import Fp8Recipe, Recompute
from rlstack.model.architecture import Architecture
from rlstack.tuning.planning.derivation import Figure, derive, total


class Layers(Enum):
    """What the policy's layers are built of."""

    transformer_engine = "on a GPU"
    local = "on the CPU"


@dataclass(frozen=True, slots=True, kw_only=True)
class MicroBatchShape:
    """Of what one rank works on."""

    num_tokens: int  # of the rank: context-parallel ranks share those of the micro-batch
    itemsize: int  # bytes of an activation; statistics have 4
    tensor_parallel: int
    sequence_parallel: bool
    context_parallel: int = 1
    fp8: Fp8Recipe | None = None  # of the layers' products of matrices
    fused: bool = False  # rotary embeddings and SwiGLU

    def inputs(self, architecture: Architecture) -> Mapping[str, float]:
        """What the formulas of this file are about; sp: ranks that share the hidden states."""
        return {
            "itemsize": self.itemsize,
            "hidden": architecture.hidden_size,
            "heads": architecture.num_heads,
            "kv_heads": architecture.num_kv_heads,
            "head_dim": architecture.head_dim,
            "ffn": architecture.ffn_size,
            "tp": self.tensor_parallel,
            "cp": self.context_parallel,
            "sp": self.tensor_parallel if self.sequence_parallel else 1,
        }


def layer_activations(
    architecture: Architecture, shape: MicroBatchShape, layers: Layers, recompute: Recompute = Recompute.none
) -> list[Figure]:
    """Bytes per token that one transformer layer keeps, by tensor; the last figure is their sum."""
    if recompute is Recompute.full:
        formulas = {"input of a layer": "itemsize*hidden/sp"}
    else:
        formulas = _attention(architecture, shape, layers) | _feed_forward(shape, layers, recompute)
    return _with_total("kept by a layer", formulas, shape.inputs(architecture))


def recomputed_activations(
    architecture: Architecture, shape: MicroBatchShape, layers: Layers, recompute: Recompute
) -> Figure:
    """Bytes per token that the backward pass of one layer makes again before it begins."""
    *_, whole = layer_activations(architecture, shape, layers)
    *_, kept = layer_activations(architecture, shape, layers, recompute)
    return derive("made again of a layer", "B/token", "whole - kept", whole=whole.value, kept=kept.value)


def head_activations(architecture: Architecture, shape: MicroBatchShape, layers: Layers) -> list[Figure]:
    """As `layer_activations`, of the final norm and the output layer, logits apart: see workspace.py."""
    formulas = {
        "final norm": f"{3 if layers is Layers.local else 2}*itemsize*hidden/sp + 4/sp",
        "labels and statistics of logprobs": "8 + 4*4",
    }
    return _with_total("kept by the head", formulas, shape.inputs(architecture))


def _attention(architecture: Architecture, shape: MicroBatchShape, layers: Layers) -> dict[str, str]:
    on_cpu = layers is Layers.local
    # Linear layers keep their inputs in FP8. The projection's is the attention's output, which is kept whole
    # as well; with scales from the values themselves it takes that one: set_save_original_input in
    # megatron/core/transformer/attention.py.
    copy = " + heads*head_dim/tp" if shape.fp8 is Fp8Recipe.delayed else ""
    formulas = {
        "norm before attention": _norm(shape, layers),
        # The value is a part of what was computed in one piece, which stays whole.
        "query key value": "itemsize*(heads + 2*kv_heads)*head_dim/tp",
        "rotated query and key": "itemsize*(heads + kv_heads)*head_dim/tp",
        # Fused, all layers keep one table of angles.
        **({} if shape.fused else {"cosines and sines": "4*itemsize*head_dim"}),
        # On the CPU the sequences' outputs are put together by a copy.
        "attention": f"{2 if on_cpu else 1}*itemsize*heads*head_dim/tp{copy}",
        "statistics of attention": "4*heads/tp",
    }
    if architecture.qk_norm:
        formulas["query and key norms"] = _query_key_norms(architecture, shape, on_cpu=on_cpu)
    return formulas


def _feed_forward(shape: MicroBatchShape, layers: Layers, recompute: Recompute) -> dict[str, str]:
    """With recompute selective: its input alone, which is the norm's on a GPU, and the norm's output else."""
    norm = {"norm before feed-forward": _norm(shape, layers)}
    if recompute is Recompute.none:
        # Gate above up, their product; unfused, silu of the gate and up plus an offset of 0 as well.
        product = "itemsize" if shape.fp8 is None else "1"
        return norm | {"feed-forward": f"({2 if shape.fused else 4}*itemsize + {product})*ffn/tp"}
    return norm if layers is Layers.local else {"input of feed-forward": "itemsize*hidden/sp"}


def _norm(shape: MicroBatchShape, layers: Layers) -> str:
    """Its input and output; torch's RMSNorm keeps the input normalised too."""
    if layers is Layers.local:
        return "(3*itemsize*hidden + 4)/sp"
    return f"((itemsize + {'itemsize' if shape.fp8 is None else '1'})*hidden + 4)/sp"


def _query_key_norms(architecture: Architecture, shape: MicroBatchShape, *, on_cpu: bool) -> str:
    """The inputs in one piece.

    torch's RMSNorm keeps them normalised; and as they were only if they had to be copied, which the key never
    has, and the query not where the rank has a single key-value head.
    """
    copies = "heads + kv_heads"
    if on_cpu and architecture.num_kv_heads > shape.tensor_parallel:
        copies = "2*heads + kv_heads"
    return f"(itemsize*head_dim*({copies}) + 4*(heads + kv_heads))/tp"


def _with_total(name: str, formulas: Mapping[str, str], inputs: Mapping[str, float]) -> list[Figure]:
    parts = [derive(part, "B/token", formula, **inputs) for part, formula in formulas.items()]
    return [*parts, total(name, parts)]
