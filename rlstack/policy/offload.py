"""The optimiser's state in host memory, except while a step or a checkpoint needs it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from rlstack.policy.backend import MegatronOptimizer


class OffloadedState:
    """Adam's moments, and the fp32 weights of a model whose own are of 16 bits.

    megatron-core's `offload_to_cpu` would part the weights of an fp32 model from those that are stepped,
    which are one memory.
    """

    def __init__(self, optimizer: MegatronOptimizer, *, is_on: bool) -> None:
        """is_on: False leaves the state where it is, and makes `at_hand` do nothing."""
        self._optimizer = optimizer
        self._is_on = is_on
        self._device: dict[Tensor, torch.device] = {}  # of the fp32 weights
        self._host: dict[tuple[Tensor, str], Tensor] = {}  # page-locked, made once
        if is_on:
            self._put_away()

    @contextmanager
    def at_hand(self) -> Iterator[None]:
        """Within, the state is on the model's device; after an exception too it goes back to the host."""
        if not self._is_on:
            yield
            return
        self._bring_back()
        try:
            yield
        finally:
            self._put_away()

    @torch.no_grad()
    def _put_away(self) -> None:
        for weight in self._fp32_weights():
            weight.grad = None
            self._device[weight] = weight.device
            weight.data = self._to_host(weight, "weight", weight.data)
        for parameter, state in self._moments():
            self._device.setdefault(parameter, parameter.device)
            for name, moment in state.items():
                state[name] = self._to_host(parameter, name, moment)
        _wait_for_copies()

    @torch.no_grad()
    def _bring_back(self) -> None:
        for weight in self._fp32_weights():
            weight.data = weight.data.to(self._device[weight], non_blocking=True, copy=True)
        for parameter, state in self._moments():
            for name, moment in state.items():
                state[name] = moment.to(self._device[parameter], non_blocking=True, copy=True)

    def _to_host(self, parameter: Tensor, name: str, tensor: Tensor) -> Tensor:
        key = (parameter, name)
        if key not in self._host:
            self._host[key] = torch.empty_like(tensor, device="cpu", pin_memory=tensor.is_cuda)
        return self._host[key].copy_(tensor, non_blocking=tensor.is_cuda)

    def _fp32_weights(self) -> list[Tensor]:
        """This rank's shares, as parameters of Adam; none of a model in fp32."""
        groups = self._optimizer.chained_optimizers[0].shard_fp32_from_float16_groups
        return [weight for group in groups for weight in group]

    def _moments(self) -> list[tuple[Tensor, dict[str, Tensor]]]:
        """By parameter; there are none before the first step."""
        return list(self._optimizer.optimizer.state.items())


def _wait_for_copies() -> None:
    """The memory of what was copied is given to others now."""
    if torch.cuda.is_available():
        torch.cuda.current_stream().synchronize()
