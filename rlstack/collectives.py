"""Messages between the ranks of a process group beside tensors, where a stranger may have joined them.

Neither gloo nor NCCL asks who connects, and torch's collectives of objects (`all_gather_object` and the like)
unpickle what comes, which runs what its writer wants. So the project's own words are JSON, and the pickles of
megatron-core, torch's checkpoints and vLLM carry a proof that their writer knows the run's secret.
"""

from __future__ import annotations

import hmac
import io
import json
import os
import pickle
import secrets
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import distributed_c10d

from rlstack.errors import StrangerError

SECRET = "RLSTACK_GROUP_SECRET"  # a variable, because nothing else reaches vLLM's workers before they meet
_PURPOSE = b"rlstack: a pickle between the ranks of a process group\0"
_PROOF_BYTES = 32
_JOINED = (
    "another process has joined the ranks; run where nobody else can connect to them, in a container or a "
    "network namespace, or on a network of the cluster's own"
)


def new_secret() -> str:
    """Make the secret of a run, for the environment of all its roles and of nobody else."""
    return secrets.token_hex(32)


def gather_json(value: Any) -> list[Any]:
    """The JSON `value` of every rank of the default group, in the order of the ranks. Collective.

    Raises StrangerError if a rank has sent something else.
    """
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    data = torch.frombuffer(bytearray(json.dumps(value), "utf-8"), dtype=torch.uint8).to(device)
    sizes = _gather(torch.tensor([data.numel()], device=device))
    padded = torch.zeros(max(map(int, sizes)), dtype=torch.uint8, device=device)
    padded[: data.numel()] = data
    texts = zip(_gather(padded), sizes, strict=True)
    try:
        return [json.loads(bytes(text[: int(size)].tolist())) for text, size in texts]
    except ValueError as error:
        raise StrangerError(f"a rank has sent what is no JSON ({error}): {_JOINED}") from None


def _gather(tensor: Tensor) -> list[Tensor]:
    gathered = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
    dist.all_gather(gathered, tensor)
    return gathered


def demand_proof() -> None:
    """Have torch's collectives of objects in this process take pickles of the run's own processes only.

    From now on each pickle that they send ends with an HMAC of it, and one that comes without raises
    StrangerError instead of being unpickled. Call before this process joins a group.

    Raises RuntimeError if the environment has no secret, or if this torch pickles by other means.
    """
    if not (secret := os.environ.get(SECRET)):
        raise RuntimeError(f"{SECRET} is not set: the driver sets it for each role of a run")
    torchs: Any = distributed_c10d
    for function, name in ((torchs._object_to_tensor, "_pickler"), (torchs._tensor_to_object, "_unpickler")):
        if name not in function.__code__.co_names:
            raise RuntimeError(
                f"torch {torch.__version__}: {function.__name__} does not use {name}, so that what strangers "
                "send would be unpickled; install a version that pyproject.toml names"
            )
    torchs._pickler = partial(_Pickler, secret.encode())
    torchs._unpickler = partial(_Unpickler, secret.encode())


class _Pickler:
    """As pickle.Pickler, in what distributed_c10d does with it."""

    def __init__(self, secret: bytes, file: io.BytesIO) -> None:
        self._secret, self._file = secret, file

    def dump(self, thing: Any) -> None:
        data = pickle.dumps(thing)
        self._file.write(data + _proof(self._secret, data))


class _Unpickler:
    """As pickle.Unpickler, in what distributed_c10d does with it."""

    def __init__(self, secret: bytes, file: io.BytesIO) -> None:
        self._secret, self._file = secret, file

    def load(self) -> Any:
        data = self._file.read()
        data, proof = data[:-_PROOF_BYTES], data[-_PROOF_BYTES:]
        if not hmac.compare_digest(proof, _proof(self._secret, data)):
            raise StrangerError(
                "an object came over a process group without the proof that a process of this run has sent "
                f"it, and was not unpickled: {_JOINED}"
            )
        return pickle.loads(data)


def _proof(secret: bytes, data: bytes) -> bytes:
    return hmac.digest(secret, _PURPOSE + data, "sha256")
