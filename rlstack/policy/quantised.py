"""The weights that the policy multiplies with in FP8."""

from __future__ import annotations

import re
from collections.abc import Iterable

from torch import nn

from rlstack.model.architecture import Architecture
from rlstack.model.weight_names import global_name, stage_rules
from rlstack.policy.backend import TransformerConfig, is_first_last_bf16_layer
from rlstack.policy.model import PolicyModel
from rlstack.policy.parallel import stage

MATRIX = 2  # dimensions
_LAYER = re.compile(r"decoder\.layers\.(\d+)\.")


def quantised_weights(model: PolicyModel) -> set[str]:
    """Hugging Face names of those that this rank's stage multiplies with in FP8; empty without FP8."""
    names: set[str] = set()
    for chunk, layers in zip(model.chunks, model.stages[stage()], strict=True):
        names |= quantised_names(
            model.config, model.architecture, quantisable(chunk), first_layer=layers.start
        )
    return names


def quantisable(chunk: nn.Module) -> list[str]:
    """The parameters of `chunk` that belong to linear layers of Transformer Engine, which have FP8."""
    return [
        f"{path}.weight"
        for path, module in chunk.named_modules()
        if hasattr(module, "fp8_meta") and getattr(module, "weight", None) is not None
    ]


def quantised_names(
    config: TransformerConfig, architecture: Architecture, names: Iterable[str], *, first_layer: int
) -> set[str]:
    """Hugging Face names of what megatron-core quantises of `names`, parameters of a chunk.

    first_layer: the number, from 0 in the whole model, of the chunk's first layer.
    """
    if not config.fp8:
        return set()
    rules = stage_rules(architecture)
    found = set()
    for name in (global_name(name, first_layer) for name in names):
        layer = _LAYER.match(name)
        if layer is not None and not is_first_last_bf16_layer(config, int(layer[1])):
            found |= {part.name for part in rules[name].parts if len(part.shape) == MATRIX}
    return found
