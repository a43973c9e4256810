"""Memory of one process that other processes of its host can map, and handles of it in plain data.

Such memory has no name in any file system: nothing is left of it when its last process ends, however that is.
"""

from __future__ import annotations

import base64
import json
import mmap
import os
import secrets
import weakref
from typing import Any

import torch
from torch import Tensor

from rlstack.transfer.errors import TransferError


class SharedMemory:
    """`tensor` is `num_bytes` zeros, uint8, on `device`: a GPU or the CPU."""

    def __init__(self, num_bytes: int, *, device: torch.device) -> None:
        if device.type == "cuda":
            self.tensor = torch.zeros(num_bytes, dtype=torch.uint8, device=device)
            return
        # Unlike what is in /dev/shm this is not bounded by that mount, which containers keep small.
        self._name = f"rlstack-{secrets.token_hex(16)}"
        self._fd = os.memfd_create(self._name)
        weakref.finalize(self, os.close, self._fd)
        os.fchmod(self._fd, 0o600)
        os.ftruncate(self._fd, num_bytes)
        self.tensor = _map(self._fd, num_bytes)

    def handle(self) -> str:
        """JSON with which one other process can map this memory, while it exists."""
        if self.tensor.is_cuda:
            # As torch.multiprocessing.reductions.reduce_tensor; its count of users goes up with every call.
            storage: Any = self.tensor.untyped_storage()
            fields = storage._share_cuda_()
            return json.dumps({"cuda": [_encoded(field) for field in fields]})
        memory = {"pid": os.getpid(), "fd": self._fd, "name": self._name, "num_bytes": self.tensor.numel()}
        return json.dumps(memory)


def open_memory(handle: str) -> Tensor:
    """The memory of another process, uint8, of which `handle` is; on a GPU seen from the current device.

    Raises TransferError if that process is not on this host, is of another user or has ended.
    """
    memory = json.loads(handle)
    if "cuda" in memory:
        _, *fields = map(_decoded, memory["cuda"])
        untyped: Any = torch.UntypedStorage
        storage = untyped._new_shared_cuda(torch.cuda.current_device(), *fields)
        return torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)
    path = f"/proc/{memory['pid']}/fd/{memory['fd']}"
    try:
        # The name is looked at before anything is opened: on another host this may be anyone's file.
        if os.readlink(path) != f"/memfd:{memory['name']} (deleted)":
            raise OSError(f"{path} is something else on this host")
        with open(path, "r+b", buffering=0) as file:
            return _map(file.fileno(), memory["num_bytes"])
    except OSError as error:
        raise TransferError(
            f"the memory of a peer cannot be mapped ({error}); both have to run on one host, as one user and "
            "in one container; set transfer.channel=network otherwise"
        ) from error


def _map(fd: int, num_bytes: int) -> Tensor:
    return torch.frombuffer(mmap.mmap(fd, num_bytes), dtype=torch.uint8)


def _encoded(field: object) -> object:
    return base64.b64encode(field).decode() if isinstance(field, bytes) else field


def _decoded(field: object) -> object:
    """No field is text by itself."""
    return base64.b64decode(field) if isinstance(field, str) else field
