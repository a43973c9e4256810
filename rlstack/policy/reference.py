"""The reference policy: a copy of this rank's weights that takes the policy's place for a forward pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from rlstack.config.schedule_words import WITH_GENERATOR
from rlstack.config.schema import Schedule
from rlstack.policy.model import PolicyModel


def follows_policy(schedule: Schedule) -> bool:
    """Whether the reference takes over the policy after every step; it needs no weights of its own then."""
    every = schedule.sync_interval if schedule.reference_sync == WITH_GENERATOR else schedule.reference_sync
    return every == 1


class Reference:
    """Holds the weights of one version, of the model that it is given, which it never changes."""

    def __init__(self, model: PolicyModel, *, version: int) -> None:
        self._parameters = list(model.parameters())
        self.copies = [parameter.detach().clone() for parameter in self._parameters]  # in their order
        self.version = version

    @torch.no_grad()
    def sync(self, version: int) -> None:
        """Take over the model's weights, which are `version`."""
        for copy, parameter in zip(self.copies, self._parameters, strict=True):
            copy.copy_(parameter)
        self.version = version

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within, the model computes with the reference's weights; only pointers are exchanged."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def _exchange(self) -> None:
        for index, parameter in enumerate(self._parameters):
            self.copies[index], parameter.data = parameter.data, self.copies[index]
