"""The weights that the engines hold, where the policy has gone on from them.

Who goes on from a checkpoint, or replaces an engine, sends them once more.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rlstack.config.schedule_words import WITH_GENERATOR, keeps_served
from rlstack.config.schema import RunConfig
from rlstack.policy.model import PolicyModel
from rlstack.policy.reference import Reference


class ServedWeights:
    """`version` is what was last sent, 0 at first. Its weights are the policy's, the reference's, or a copy
    of their own, which lies in host memory.
    """

    def __init__(self, model: PolicyModel, reference: Reference | None, config: RunConfig) -> None:
        self._parameters = list(model.parameters())
        self._reference = reference
        shares = reference is not None and config.schedule.reference_sync == WITH_GENERATOR
        self.copies = host_copies(self._parameters) if keeps_served(config) and not shares else None
        self._set_aside: list[Tensor] | None = None  # the policy's, while the model holds the served ones
        self.version = 0

    def take_over(self, version: int) -> None:
        """Remember the model's weights, which are `version` and are being sent."""
        if version == self.version:
            return
        if self.copies is not None:
            copy_into(self.copies, self._parameters)
        self.version = version

    def put_in_place(self, version: int, *, policy_version: int) -> None:
        """From now until put_back() the model holds the weights of `version`, if it does not already.

        Contents are exchanged, not pointers: a GPU needs no room for a second set of weights. The policy's
        wait in host memory. Nothing of the model may be on its way to the engines.

        Raises RuntimeError if they are not kept.
        """
        assert self._set_aside is None, "put_back comes first"
        if version == policy_version:
            return
        source = self._source(version)
        if source is None:
            raise RuntimeError(
                f"the weights of version {version} are not kept; those of {policy_version}, the policy's, are"
            )
        self._set_aside = host_copies(self._parameters)
        copy_into(self._parameters, source)

    def put_back(self) -> None:
        """The model holds the policy's weights again, to the bit."""
        if self._set_aside is not None:
            copy_into(self._parameters, self._set_aside)
            self._set_aside = None

    def _source(self, version: int) -> Sequence[Tensor] | None:
        if self._reference is not None and self._reference.version == version:
            return self._reference.copies
        return self.copies if self.version == version else None


@torch.no_grad()
def copy_into(targets: Sequence[Tensor], sources: Sequence[Tensor]) -> None:
    """Give `targets` the content of `sources`, of the same shapes; devices may differ."""
    for target, source in zip(targets, sources, strict=True):
        target.copy_(source, non_blocking=source.is_pinned())
    _wait_for_copies()


@torch.no_grad()
def host_copies(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Copies in host memory, page-locked where there is a GPU to copy from."""
    copies = [
        torch.empty_like(tensor, device="cpu", pin_memory=tensor.is_cuda, requires_grad=False)
        for tensor in tensors
    ]
    for copy, tensor in zip(copies, tensors, strict=True):
        copy.copy_(tensor, non_blocking=tensor.is_cuda)
    _wait_for_copies()
    return copies


def _wait_for_copies() -> None:
    if torch.cuda.is_available():
        torch.cuda.current_stream().synchronize()
