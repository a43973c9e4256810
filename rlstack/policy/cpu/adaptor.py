"""megatron-core without CUDA: the names of CUDA in its code, and only in its code, mean the CPU.

megatron-core has no CPU path (checked on 0.16.1). An import hook rewrites the code
objects of `megatron.core.*` as they are loaded: the constant "cuda" becomes "cpu", "torch.cuda.XTensor"
becomes "torch.XTensor", and the attribute `cuda` becomes `mcpu`, which this module answers. Nothing else in
the process changes: `torch.cuda` and `Tensor.cuda` still raise for everyone else. Can go when megatron-core
runs on CPU itself.

This is the one place that changes another library at run time.
"""

from __future__ import annotations

import contextlib
import importlib.abc
import importlib.machinery
import sys
import types
from collections.abc import Callable, Sequence
from typing import Any

import torch

from rlstack.policy.cpu.fused_adam import FusedAdam

_PACKAGE = "megatron.core"
_DTYPES = ("Float", "Half", "BFloat16", "Double", "Long", "Int", "Bool", "Byte")


def install() -> None:
    """Adapt megatron-core to the CPU; to be called once per process, before it is imported.

    Raises RuntimeError if CUDA is there, or if megatron.core was imported before.
    """
    if torch.cuda.is_available():
        raise RuntimeError("CUDA is available: megatron-core must run on it, not on the CPU adaptor")
    if early := [name for name in sys.modules if name.startswith(_PACKAGE)]:
        raise RuntimeError(
            f"{early[0]} was imported before the CPU adaptor; import rlstack.policy.backend instead"
        )
    namespace = _namespace()
    sys.modules[namespace.__name__] = namespace
    torch.mcpu = namespace  # type: ignore[attr-defined]
    torch.Tensor.mcpu = torch.nn.Module.mcpu = lambda self, *_, **__: self  # type: ignore[attr-defined]
    sys.meta_path.insert(0, _Finder())


class _Stream:
    """A CUDA stream or event where everything is synchronous."""

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __enter__(self) -> _Stream:
        return self

    def __exit__(self, *_: Any) -> None: ...

    def synchronize(self, *_: Any) -> None: ...

    wait_stream = wait_event = record = wait = record_stream = synchronize


class _Namespace(types.ModuleType):
    """What `torch.cuda` is to the rewritten code; names without an answer here are the real ones."""

    def __getattr__(self, name: str) -> Any:
        return getattr(torch.cuda, name)


def _namespace() -> _Namespace:
    cpu = torch.device("cpu")
    namespace = _Namespace("torch.mcpu")

    def nothing(*_: Any, **__: Any) -> None: ...

    def zero(*_: Any, **__: Any) -> int:
        return 0

    def call_now(function: Callable[[], Any], **_: Any) -> None:
        function()

    random = types.SimpleNamespace(
        get_rng_state=lambda *_, **__: torch.get_rng_state(),
        set_rng_state=lambda state, *_, **__: torch.set_rng_state(state),
    )
    answers: dict[str, Any] = {
        **dict.fromkeys(("synchronize", "empty_cache", "set_device", "_lazy_init"), nothing),
        **dict.fromkeys(("memory_allocated", "max_memory_allocated", "memory_reserved"), zero),
        **dict.fromkeys(("is_available", "is_initialized"), lambda: False),
        **dict.fromkeys(("Stream", "Event", "current_stream", "default_stream"), _Stream),
        **dict.fromkeys(("stream", "device"), lambda *_: contextlib.nullcontext()),
        **dict.fromkeys(("manual_seed", "manual_seed_all"), torch.manual_seed),
        **{f"{name}Tensor": getattr(torch, f"{name}Tensor") for name in _DTYPES},
        "_lazy_call": call_now,  # the real one waits for CUDA for ever
        "device_count": lambda: 1,
        "current_device": lambda: cpu,
        **vars(random),
        "random": random,
        "default_generators": {cpu: torch.default_generator},
        "nvtx": types.SimpleNamespace(range_push=nothing, range_pop=nothing),
    }
    vars(namespace).update(answers)
    return namespace


def rewrite(code: types.CodeType) -> types.CodeType:
    """`code` with the names of CUDA exchanged for those of this module."""
    return code.replace(
        co_consts=tuple(_constant(value) for value in code.co_consts),
        co_names=tuple(_name(name) for name in code.co_names),
    )


def _constant(value: Any) -> Any:
    if isinstance(value, types.CodeType):
        return rewrite(value)
    if isinstance(value, tuple | frozenset):
        return type(value)(_constant(item) for item in value)
    if value == "cuda":
        return "cpu"
    if isinstance(value, str) and value.startswith("torch.cuda.") and value.endswith("Tensor"):
        return "torch." + value.removeprefix("torch.cuda.")
    return value


def _name(name: str) -> str:
    if name == "cuda":
        return "mcpu"
    if name == "torch.cuda" or name.startswith("torch.cuda."):
        return "torch.mcpu" + name.removeprefix("torch.cuda")
    return name


def _use_fused_adam(module: types.ModuleType) -> None:
    """Upstream falls back to torch's AdamW; the distributed optimiser cannot checkpoint its state."""
    distributed = sys.modules[f"{_PACKAGE}.optimizer.distrib_optimizer"]
    vars(module).update(Adam=FusedAdam, USING_PYTORCH_OPTIMIZER=False)
    vars(distributed).update(Adam=FusedAdam, HAVE_APEX_OR_TE=True, USING_APEX_OPTIMIZER=True)


def _compile_nothing(module: types.ModuleType) -> None:
    """Keep its decorator from loading Dynamo and Inductor: a third of all imports, which no layer needs."""
    module.disable_jit_fuser()


_AFTER_IMPORT = {f"{_PACKAGE}.optimizer": _use_fused_adam, f"{_PACKAGE}.jit": _compile_nothing}


class _Loader(importlib.machinery.SourceFileLoader):
    def get_code(self, fullname: str) -> types.CodeType | None:
        code = super().get_code(fullname)
        return None if code is None else rewrite(code)

    def exec_module(self, module: types.ModuleType) -> None:
        super().exec_module(module)
        if module.__name__ in _AFTER_IMPORT:
            _AFTER_IMPORT[module.__name__](module)


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if not fullname.startswith(_PACKAGE):
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and type(spec.loader) is importlib.machinery.SourceFileLoader:
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec
