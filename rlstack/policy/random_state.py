"""The states of this rank's random generators, as tensors."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from rlstack.policy.backend import get_cuda_rng_tracker, on_gpu


def random_states() -> dict[str, Tensor]:
    """[n] uint8 on the host each: PyTorch's own, CUDA's, and those that megatron-core tells apart by name."""
    states = {"cpu": torch.get_rng_state()}
    if on_gpu():
        states["cuda"] = torch.cuda.get_rng_state()
    for name, state in get_cuda_rng_tracker().get_states().items():
        states[f"tracker.{name}"] = state.clone()
    return states


def set_random_states(states: Mapping[str, Tensor]) -> None:
    """Go on from `states`, which `random_states` gave on the same kind of device."""
    torch.set_rng_state(states["cpu"])
    if on_gpu():
        torch.cuda.set_rng_state(states["cuda"])
    prefix = "tracker."
    tracked = {name.removeprefix(prefix): state for name, state in states.items() if name.startswith(prefix)}
    get_cuda_rng_tracker().set_states(tracked)
