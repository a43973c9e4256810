"""This rank's end of a weight transfer, whatever the method."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import torch.distributed as dist
from torch import Tensor

from rlstack.config.schema import TransferChannel, TransferMethod
from rlstack.policy.hf_io import model_tensors, stage_specs, stage_tensors
from rlstack.policy.model import PolicyModel
from rlstack.policy.parallel import is_first_replica, is_leader, num_stages, stage
from rlstack.policy.weight_source import source_pieces, source_tensor
from rlstack.transfer.gather import GatherSender
from rlstack.transfer.negotiation import LayoutCache
from rlstack.transfer.reshard import ReshardSender


class WeightOutlet(Protocol):
    """begin() and fence() are collective over the ranks, or over those of the first replica."""

    def begin(self, version: int, receivers: Sequence[int] | None = None) -> None:
        """Start to send the weights, which are `version` and stay as they are until fence() returns.

        receivers: the workers that take part; None: all of those that it was opened for.
        """

    def settle(self) -> None:
        """Wait until they may be written to, whatever became of the round: fence() has yet to say that."""

    def fence(self) -> dict[str, float]:
        """Wait until they have left; figures of the round, {} if none was begun."""


def open_source(
    method: TransferMethod,
    model: PolicyModel,
    ends: dict[str, Any],
    *,
    channel: TransferChannel,
    cache: LayoutCache,
) -> WeightOutlet:
    """Meet the engines' workers; `ends` are the keywords that all senders share, `channel` and `cache`
    are of reshard.

    Raises TransferError naming who did not come.
    """
    if method is TransferMethod.reshard:
        return ReshardSender(
            source=dist.get_rank(),
            num_sources=dist.get_world_size(),
            pieces=source_pieces(model.chunks, model.architecture),
            tensor_of=lambda name: source_tensor(model.chunks, name),
            cache=cache,
            **(ends | {"backend": "ipc"} if channel is TransferChannel.ipc else ends),
        )
    return GatherOutlet(model, whole_model=method is TransferMethod.gather_rank0, ends=ends)


class GatherOutlet:
    """Gathers whole tensors on this rank, of its stage or of the model, and sends them if it leads."""

    def __init__(self, model: PolicyModel, *, whole_model: bool, ends: dict[str, Any]) -> None:
        self._model = model
        self._tensors: Callable[[PolicyModel], Iterator[tuple[str, Tensor]]]
        self._tensors = model_tensors if whole_model else stage_tensors
        self._version: int | None = None
        stages = range(num_stages()) if whole_model else [stage()]
        self._sender = GatherSender(
            stage=0 if whole_model else stage(),
            num_stages=1 if whole_model else num_stages(),
            is_leader=is_leader() and (not whole_model or stage() == 0),
            specs=[spec for index in stages for spec in stage_specs(model, index)],
            **ends,
        )

    def begin(self, version: int, receivers: Sequence[int] | None = None) -> None:
        assert receivers is None, "a broadcast goes to all"
        self._version = version

    def settle(self) -> None:
        """Nothing: fence() does all of it."""

    def fence(self) -> dict[str, float]:
        version, self._version = self._version, None
        if version is None or not is_first_replica():
            return {}
        return self._sender.send(self._tensors(self._model), version=version)
