"""Transformer Engine's Python without a GPU: its compiled extension is a stand-in that cannot compute.

Import it before anything of Transformer Engine or megatron-core. Modules can be built, their parameters and
settings looked at; a call into the extension raises RuntimeError.
"""

from __future__ import annotations

import enum
import itertools
import os
import sys
import types
from typing import Any
from unittest import mock

import torch

CUDNN, CUBLAS = 92000, 130100  # as the extension reports them


class _Member:
    """A member of one of the extension's enums, or a function of its."""

    _numbers = itertools.count()

    def __init__(self, name: str) -> None:
        self.name, self.value = name, next(self._numbers)

    def __int__(self) -> int:
        return self.value

    def __hash__(self) -> int:
        return hash(self.name)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Member) and other.name == self.name

    def __call__(self, *_: Any, **__: Any) -> None:
        raise RuntimeError(f"{self.name} needs Transformer Engine's compiled extension")

    def __getattr__(self, name: str) -> _Member:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Member(f"{self.name}.{name}")


class _Names(type):
    """A class of the extension's: an enum with any member, or what is made and passed on."""

    def __getattr__(cls, name: str) -> _Member:
        if name.startswith("__"):
            raise AttributeError(name)
        member = _Member(f"{cls.__name__}.{name}")
        setattr(cls, name, member)
        return member


class DType(enum.IntEnum):
    """As in transformer_engine.h; Transformer Engine compares these members with its own."""

    kByte = 0
    kInt32 = 2
    kFloat32 = 4
    kFloat16 = 5
    kBFloat16 = 6
    kFloat8E4M3 = 7
    kFloat8E5M2 = 8
    kFloat4E2M1 = 10


class Backend(enum.IntEnum):
    """As in fused_attn.h."""

    NVTE_No_Backend = -1
    NVTE_F16_arbitrary_seqlen = 1
    NVTE_FP8 = 2


class _Extension(types.ModuleType):
    """The compiled module: every name is there."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        made = _Names(name, (), {"__init__": lambda *_, **__: None})
        setattr(self, name, made)
        return made


class _Hopper:
    """As torch describes an H200."""

    name = "NVIDIA H200"
    major, minor = 9, 0
    multi_processor_count = 132
    total_memory = 141 * 2**30
    shared_memory_per_block_optin = 232448


def _install() -> None:
    extension = _Extension("transformer_engine_torch")
    extension.__file__, extension.__all__ = "none", []  # type: ignore[attr-defined]
    extension.DType, extension.NVTE_Fused_Attn_Backend = DType, Backend  # type: ignore[attr-defined]
    extension.get_cudnn_version = lambda: CUDNN  # type: ignore[attr-defined]
    extension.get_cublasLt_version = lambda: CUBLAS  # type: ignore[attr-defined]
    extension.get_num_cublas_streams = lambda: 4  # type: ignore[attr-defined]
    sys.modules[extension.__name__] = extension
    os.environ["NVTE_PROJECT_BUILDING"] = "1"  # the library with its kernels is not loaded then
    for name, answer in {
        "get_device_capability": lambda *_: (9, 0),
        "get_device_properties": lambda *_: _Hopper,
        "is_current_stream_capturing": lambda: False,
    }.items():
        mock.patch.object(torch.cuda, name, answer).start()
    import transformer_engine.common

    transformer_engine.common.load_framework_extension = lambda _: None
    import transformer_engine.pytorch


_install()
