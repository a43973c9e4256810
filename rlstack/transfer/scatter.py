"""From what arrived into what a vLLM model computes with: staged, by vLLM's own post-processing, or direct.

Both only copy: everything was received and verified before. A failure in here leaves a model that is neither
the old one nor the new one, hence LandingError, after which the engine must not serve.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F

from rlstack.transfer.arena import window
from rlstack.transfer.bake import Layout, Spec, named_tensors
from rlstack.transfer.errors import LandingError
from rlstack.transfer.inbox import Arrival
from rlstack.transfer.layout import View


@torch.no_grad()
def land_staged(
    model: torch.nn.Module, layout: Layout, arrivals: Iterable[Arrival], *, model_config: Any, device: Any
) -> None:
    """Build each module's tensors as a checkpoint has them; let vLLM repack or quantise them as on loading.

    vLLM copies the outcome into the storage that its kernels and CUDA graphs already point to. The recipe is
    that of its layerwise reload, with our copies in place of its weight loaders. Modules come in the model's
    order, not in that of the arrivals: to quantise one, an engine's workers may have to agree on a scale.
    """
    from vllm.model_executor.layers.attention import is_deferred_attention_layer
    from vllm.model_executor.model_loader.reload.layerwise import (
        _layerwise_process,
        _place_kernel_tensors,
        finalize_layerwise_reload,
        get_layerwise_info,
        initialize_layerwise_reload,
    )
    from vllm.model_executor.model_loader.reload.meta import materialize_layer

    modules = dict(model.named_modules())
    shares = _by_module(layout, arrivals)
    with torch.device(device):
        initialize_layerwise_reload(model)
        for path in (path for path in modules if path in shares):
            module = modules[path]
            info = get_layerwise_info(module)
            materialize_layer(module, info)
            for view, shape, data in shares[path]:
                window(_tensor(modules, view), view, shape).copy_(data)
            _layerwise_process(module, info)
        for module in modules.values():
            info = get_layerwise_info(module)
            # Tied heads, rotary tables: nothing arrives for them, of which vLLM would warn every time.
            if info.can_load() and not is_deferred_attention_layer(module):
                _place_kernel_tensors(module, info)
                info.reset()
        finalize_layerwise_reload(model, model_config)
    repack_tied_weights(model)


@torch.no_grad()
def land_direct(model: torch.nn.Module, arrivals: Iterable[Arrival]) -> None:
    """Copy into the live parameters, then compare them with what arrived, bit by bit.

    Padding is left alone: it has been zero since vLLM loaded the model.

    Raises LandingError if a parameter does not hold what was written to it.
    """
    tensors = named_tensors(model)
    arrived = [(window(tensors[view.tensor], view, shape), view, data) for view, shape, data in arrivals]
    for live, _, data in arrived:
        live.copy_(data)
    for live, view, data in arrived:
        if not same_bits(live, data):
            raise LandingError(f"{view.tensor} at element {view.offset} does not hold what arrived for it")


def supports_direct(model: torch.nn.Module, tensors: Mapping[str, Spec]) -> str | None:
    """None if vLLM computes with `tensors` as a checkpoint has them; otherwise what speaks against it."""
    from vllm.model_executor.layers.linear import UnquantizedLinearMethod
    from vllm.model_executor.layers.vocab_parallel_embedding import UnquantizedEmbeddingMethod

    live = named_tensors(model)
    modules = dict(model.named_modules())
    for key, spec in tensors.items():
        module = modules[key.partition(":")[0]]
        method = getattr(module, "quant_method", None)
        if method is not None and type(method) not in (UnquantizedLinearMethod, UnquantizedEmbeddingMethod):
            return f"{key} is processed by {type(method).__name__}"
        if getattr(module, "cpu_linear", F.linear) is not F.linear:
            return f"vLLM computes with a packed copy of {key}"
        found = live.get(key)
        if found is None or (tuple(found.shape), found.dtype) != (spec.shape, spec.dtype):
            return f"{key} is not as the checkpoint has it"
        if not found.is_contiguous():
            return f"{key} is laid out in another order"
    return None


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Equal bit by bit, so that a NaN equals itself and -0.0 does not equal 0.0."""
    bits = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[a.element_size()]
    return a.dtype == b.dtype and torch.equal(a.view(bits), b.view(bits))


@torch.no_grad()
def repack_tied_weights(model: torch.nn.Module) -> None:
    """Refresh prepacked copies of a weight that two modules share.

    vLLM 0.32's CPU linears compute with a packed copy behind `cpu_linear`. Its reload repacks the modules
    that it loads; a tied output head is not loaded, only its embedding is, and would go on with the old copy.
    To be removed when vLLM's model_loader/reload/layerwise.py processes modules that share a reloaded weight.
    """
    owners: dict[int, list[torch.nn.Module]] = {}
    for module in model.modules():
        weight = module._parameters.get("weight")
        if weight is not None and weight.numel() > 0:
            owners.setdefault(id(weight), []).append(module)
    for modules in owners.values():
        for module in modules if len(modules) > 1 else ():
            if hasattr(module, "cpu_linear"):
                quant_method: Any = module.quant_method
                quant_method.process_weights_after_loading(module)


def _by_module(layout: Layout, arrivals: Iterable[Arrival]) -> dict[str, list[Arrival]]:
    """What goes into each module, zeros for its padding first."""
    zeros = {key: torch.zeros((), dtype=spec.dtype) for key, spec in layout.tensors.items()}
    padding = [(view, shape, zeros[view.tensor]) for view, shape in layout.padding]
    shares: defaultdict[str, list[Arrival]] = defaultdict(list)
    for view, shape, data in [*padding, *arrivals]:
        shares[view.tensor.partition(":")[0]].append((view, shape, data))
    return shares


def _tensor(modules: Mapping[str, torch.nn.Module], view: View) -> torch.Tensor:
    path, _, name = view.tensor.partition(":")
    tensor = getattr(modules[path], name)
    assert isinstance(tensor, torch.Tensor)
    return tensor
