"""Where the optimiser's state is while a step needs it, and while none does."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from rlstack.policy.cpu.fused_adam import FusedAdam
from rlstack.policy.offload import OffloadedState


def optimizer_of(weight: torch.Tensor) -> Any:
    """megatron-core's, as far as it counts; the weight is a share of a model in bf16."""
    adam = FusedAdam([weight], lr=0.1)
    share = SimpleNamespace(shard_fp32_from_float16_groups=[[weight]])
    return SimpleNamespace(chained_optimizers=[share], optimizer=adam)


def step(optimizer: Any, weight: torch.Tensor) -> None:
    weight.grad = torch.ones_like(weight)
    optimizer.optimizer.step()


def tensors(optimizer: Any, weight: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"weight": weight.data, **optimizer.optimizer.state[weight]}


def test_between_steps_the_state_is_in_the_same_memory_of_the_host() -> None:
    weight, other = torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.0])
    optimizer, plain = optimizer_of(weight), optimizer_of(other)
    state = OffloadedState(optimizer, is_on=True)
    places = []
    for _ in range(3):
        with state.at_hand():
            at_hand = {name: tensor.data_ptr() for name, tensor in tensors(optimizer, weight).items()}
            step(optimizer, weight)
        step(plain, other)
        assert weight.grad is None
        away = tensors(optimizer, weight)
        for name, tensor in tensors(plain, other).items():
            assert torch.equal(away[name], tensor)
        places.append({name: tensor.data_ptr() for name, tensor in away.items()})
        assert not set(places[-1].values()) & set(at_hand.values())
    assert places[0] == places[1] == places[2]


def test_a_step_that_fails_leaves_the_state_in_the_host() -> None:
    weight = torch.tensor([1.0, 2.0])
    optimizer = optimizer_of(weight)
    state = OffloadedState(optimizer, is_on=True)
    place = weight.data_ptr()
    with pytest.raises(RuntimeError, match="a gradient"), state.at_hand():
        assert weight.data_ptr() != place
        raise RuntimeError("a gradient")
    assert weight.data_ptr() == place


def test_switched_off_nothing_moves() -> None:
    weight = torch.tensor([1.0, 2.0])
    place = weight.data_ptr()
    with OffloadedState(optimizer_of(weight), is_on=False).at_hand():
        assert weight.data_ptr() == place
