"""What a vLLM worker holds of every weight, found by running vLLM's own loader on tensors without data.

No per-model code: the loader slices, fuses, replicates and pads as it does when it loads a checkpoint, and a
hook on the copies that it makes reads off which box of which weight goes where.

vLLM's sharded_rdt backend records the same with a tensor subclass, FakeRDTTensor
(vllm/distributed/weight_transfer/sharded_rdt_fake.py), since it has to request its slices from afar. Views of
meta tensors already say by themselves which box they are, and whatever is computed instead of sliced has a
storage of its own, by which it is recognised and refused.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from rlstack.transfer.errors import TransferError
from rlstack.transfer.layout import Box, Piece, View, intersection, volume

aten = torch.ops.aten


@dataclass(frozen=True, slots=True)
class Spec:
    """A tensor as vLLM's loader fills it, before anything is repacked."""

    shape: tuple[int, ...]
    dtype: torch.dtype


@dataclass(frozen=True, slots=True)
class Layout:
    """A worker's share of the weights. `View.tensor` and the keys of `tensors` are "module.path:name"."""

    pieces: list[Piece]
    padding: list[tuple[View, tuple[int, ...]]]  # windows (view, shape) that the loader fills with zeros
    tensors: dict[str, Spec]
    dtypes: dict[str, str]  # of every weight, by its Hugging Face name: float32, bfloat16

    @property
    def num_bytes(self) -> int:
        """Bytes of the share, padding aside."""
        return sum(volume(p.box) * self.tensors[p.view.tensor].dtype.itemsize for p in self.pieces)

    @property
    def num_padding(self) -> int:
        """Elements that exist only on this side."""
        return sum(torch.Size(shape).numel() for _, shape in self.padding)


@torch.no_grad()
def bake(model: torch.nn.Module, shapes: Mapping[str, tuple[int, ...]], *, dtype: torch.dtype) -> Layout:
    """The layout of `model`, a loaded vLLM model, for weights of these Hugging Face `shapes`.

    `dtype` is the model's. The model is as before afterwards.

    Raises TransferError if the loader takes something else than boxes of the weights, ignores a weight, or
    leaves elements of a parameter unset that neither are padding nor belong to a tied one.
    """
    weights = {name: torch.empty(shape, dtype=dtype, device="meta") for name, shape in shapes.items()}
    tied = _tied_tensors(model)
    with _tensors_on_meta(model) as tensors:
        recorder = _Recorder(weights, tensors)
        with recorder:
            model.load_weights(iter(weights.items()))  # type: ignore[operator]
        if unused := sorted(set(shapes) - recorder.used):
            raise TransferError(f"vLLM's loader ignores {unused[0]} and {len(unused) - 1} other weights")
        _check_coverage(model, tensors, recorder, tied)
        touched = {view.tensor for view, _ in recorder.windows}
        specs = {key: Spec(tuple(tensors[key].shape), tensors[key].dtype) for key in touched}
    return Layout(recorder.pieces, recorder.padding, specs, _wire_dtypes(recorder.pieces, specs))


def named_tensors(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and buffers of all modules by "module.path:name"; a tied one under each of its names."""
    return {
        f"{path}:{name}": tensor
        for path, module in model.named_modules()
        for name, tensor in (*module._parameters.items(), *module._buffers.items())
        if tensor is not None
    }


class _Recorder(TorchDispatchMode):
    """Notes every copy from a weight into a tensor of the model instead of making it."""

    def __init__(self, weights: Mapping[str, torch.Tensor], tensors: Mapping[str, torch.Tensor]) -> None:
        super().__init__()
        self._weights = {StorageWeakRef(t.untyped_storage()): (name, t) for name, t in weights.items()}
        self._tensors = {StorageWeakRef(t.untyped_storage()): (key, t) for key, t in tensors.items()}
        self.pieces: list[Piece] = []
        self.padding: list[tuple[View, tuple[int, ...]]] = []
        self.windows: list[tuple[View, Box]] = []  # what is set, by box within the model's tensor
        self.used: set[str] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        target = args[0] if args and isinstance(args[0], torch.Tensor) else None
        if target is None or not func._schema.is_mutable:
            return func(*args, **(kwargs or {}))
        if func is aten.copy_.default and (self._is_weight(args[1]) or self._is_of_model(target)):
            self._copy(target, args[1])
        elif self._is_of_model(target):
            if func is not aten.zero_.default and not (func is aten.fill_.Scalar and args[1] == 0):
                raise self._refusal(target, f"applies {func} to it")
            self._zero(target)
        else:
            return func(*args, **(kwargs or {}))
        return target

    def _is_weight(self, tensor: torch.Tensor) -> bool:
        return StorageWeakRef(tensor.untyped_storage()) in self._weights

    def _is_of_model(self, tensor: torch.Tensor) -> bool:
        return StorageWeakRef(tensor.untyped_storage()) in self._tensors

    def _copy(self, target: torch.Tensor, source: torch.Tensor) -> None:
        if not self._is_weight(source):
            raise self._refusal(target, "fills it with something computed, not with a part of a weight")
        name, weight = self._weights[StorageWeakRef(source.untyped_storage())]
        if not self._is_of_model(target):
            raise TransferError(f"vLLM's loader copies {name} into something that is no parameter")
        box = box_of(source, weight)
        if box is None or target.shape != source.shape:
            raise self._refusal(target, f"takes from {name} what is no box of it")
        self.used.add(name)
        if source.numel():
            self.pieces.append(Piece(name, box, self._window(target)))

    def _zero(self, target: torch.Tensor) -> None:
        if target.numel():
            self.padding.append((self._window(target), tuple(target.shape)))

    def _window(self, target: torch.Tensor) -> View:
        key, tensor = self._tensors[StorageWeakRef(target.untyped_storage())]
        box = box_of(target, tensor)
        if box is None:
            raise self._refusal(target, "writes to what is no box of it")
        view = View(key, int(target.storage_offset() - tensor.storage_offset()), tuple(target.stride()))
        self.windows.append((view, box))
        return view

    def _refusal(self, target: torch.Tensor, what: str) -> TransferError:
        key, _ = self._tensors[StorageWeakRef(target.untyped_storage())]
        return TransferError(f"{key}: vLLM's loader {what}; use transfer.method=gather for this model")


def box_of(view: torch.Tensor, whole: torch.Tensor) -> Box | None:
    """The box of `whole`, a contiguous tensor of the same storage, that `view` is; None if it is none."""
    strides = whole.stride()
    if not whole.is_contiguous() or view.dim() != whole.dim():
        return None
    if any(a != b for a, b, size in zip(view.stride(), strides, view.shape, strict=True) if size > 1):
        return None
    offset = int(view.storage_offset() - whole.storage_offset())
    box = []
    for size, limit, stride in zip(view.shape, whole.shape, strides, strict=True):
        low, offset = divmod(offset, stride)
        box.append((low, low + size))
        if low + size > limit:
            return None
    return tuple(box)


@contextmanager
def _tensors_on_meta(model: torch.nn.Module) -> Iterator[dict[str, torch.Tensor]]:
    """The model's tensors as its loader expects them, most of them without data; puts the live ones back."""
    from vllm.model_executor.model_loader.reload.layerwise import (
        _get_original_loader,
        _place_kernel_tensors,
        get_layerwise_info,
        initialize_layerwise_reload,
    )

    initialize_layerwise_reload(model)
    try:
        tensors = named_tensors(model)
        for tensor in tensors.values():
            # Without the wrapper, which would put a module together as soon as it has all its weights.
            original: Any = _get_original_loader(tensor)
            tensor.weight_loader = original  # type: ignore[attr-defined]
        yield tensors
    finally:
        for module in model.modules():
            info = get_layerwise_info(module)
            if info.can_load():
                _place_kernel_tensors(module, info)
                info.reset()
        model._do_torchao_reload = model._original_do_torchao_reload


def _tied_tensors(model: torch.nn.Module) -> dict[str, set[str]]:
    """For every tensor of the model the names under which it exists, its own included."""
    tensors = named_tensors(model)
    names: defaultdict[int, set[str]] = defaultdict(set)
    for key, tensor in tensors.items():
        names[id(tensor)].add(key)
    return {key: names[id(tensor)] for key, tensor in tensors.items()}


def _check_coverage(
    model: torch.nn.Module,
    tensors: Mapping[str, torch.Tensor],
    recorder: _Recorder,
    tied: Mapping[str, set[str]],
) -> None:
    """Every element of every parameter is set once, or the parameter is another name of one that is."""
    from vllm.model_executor.layers.attention import is_deferred_attention_layer

    boxes: defaultdict[str, list[Box]] = defaultdict(list)
    for view, box in recorder.windows:
        boxes[view.tensor].append(box)
    for path, module in model.named_modules():
        if is_deferred_attention_layer(module):
            continue  # its scales have defaults, which vLLM sets anew
        for name in module._parameters:
            key = f"{path}:{name}"
            if key not in tensors or (key not in boxes and tied.get(key, set()) & set(boxes)):
                continue
            covered, total = sum(map(volume, boxes[key])), tensors[key].numel()
            if _overlap(boxes[key]):
                raise TransferError(f"{key}: vLLM's loader sets elements twice")
            if covered != total:
                raise TransferError(
                    f"{key}: the policy's weights set {covered} of its {total} elements; the others "
                    f"would keep stale values"
                )


def _overlap(boxes: Sequence[Box]) -> bool:
    """A sweep along the first dimension, on which fused parameters have their many parts."""
    near: list[Box] = []
    for box in sorted(boxes):
        near = [other for other in near if not box or other[0][1] > box[0][0]]
        if any(intersection(box, other) is not None for other in near):
            return True
        near.append(box)
    return False


def _wire_dtypes(pieces: Sequence[Piece], specs: Mapping[str, Spec]) -> dict[str, str]:
    """The dtype in which each weight travels: that of the tensors that it goes to."""
    dtypes: dict[str, str] = {}
    for piece in pieces:
        dtype = str(specs[piece.view.tensor].dtype).removeprefix("torch.")
        if dtypes.setdefault(piece.name, dtype) != dtype:
            raise TransferError(f"{piece.name} goes into tensors of {dtypes[piece.name]} and of {dtype}")
    return dtypes
