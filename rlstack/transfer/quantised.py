"""The weights that a vLLM model multiplies with in FP8."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch


def quantised_weights(model: torch.nn.Module) -> set[str]:
    """Hugging Face names of the weights of those linear layers of `model` that vLLM quantises itself."""
    from vllm.model_executor.layers.quantization.online.fp8 import OnlineLinearBase

    paths = [
        path
        for path, module in model.named_modules()
        if isinstance(getattr(module, "quant_method", None), OnlineLinearBase)
    ]
    return weight_names(paths, getattr(model, "packed_modules_mapping", {}))


def weight_names(paths: Sequence[str], packed: Mapping[str, Sequence[str]]) -> set[str]:
    """Hugging Face names of the weights in the modules at `paths`.

    packed: by the last part of a path, the layers that a module consists of.
    """
    names = set()
    for path in paths:
        parent, _, name = path.rpartition(".")
        names |= {f"{parent}.{part}.weight" for part in packed.get(name, [name])}
    return names
