"""vLLM's NCCL settings of deterministic engines, which are not for a communicator with the policy."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import torch

pytest.importorskip("vllm")

from rlstack.transfer import landing, vllm_engine
from rlstack.transfer.landing import WeightLanding

NAME = "NCCL_PROTO"


class Made(Exception):
    """A receiver, and its communicator with it, would be made now."""


@pytest.fixture
def pinned(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As vLLM's worker does, with an NCCL that reads its settings for each communicator."""
    from vllm.utils import nccl

    monkeypatch.setattr(nccl, "_nccl_has_no_cache", lambda: True)
    monkeypatch.setattr(nccl, "_unpinned_env", None)
    with mock.patch.dict(os.environ):
        os.environ.pop(NAME, None)
        nccl.pin_nccl_env({NAME: "Simple"})
        yield


def open_gather(found: Callable[..., None]) -> None:
    worker: Any = SimpleNamespace(rank=0, device=torch.device("cpu"))
    with mock.patch.object(landing, "GatherReceiver", found):
        WeightLanding.rlstack_open_gather(worker, "gather", "127.0.0.1", 1, 1, 0, 1, 1.0)


def open_reshard(found: Callable[..., None]) -> None:
    engine = object.__new__(vllm_engine.ReshardEngine)
    engine.model = engine.model_config = engine.parallel_config = mock.MagicMock()
    engine.model_config.dtype, engine.parallel_config.rank = torch.bfloat16, 0
    engine.device = torch.device("cpu")
    init = vllm_engine.ReshardInit("127.0.0.1", 1, 1, 0, 1, 1, 1.0, landing="staged")
    names = ("connect_store", "published_shapes", "bake", "Agreement")
    fakes: dict[str, Any] = {name: mock.MagicMock() for name in names} | {"ReshardReceiver": found}
    with mock.patch.multiple(vllm_engine, **fakes), pytest.raises(Made):
        engine.init_transfer_engine(init)


@pytest.mark.parametrize("open_transfer", [open_gather, open_reshard])
def test_a_communicator_with_the_policy_is_made_without_them(
    open_transfer: Callable[[Callable[..., None]], None], pinned: None
) -> None:
    seen: list[str | None] = []

    def receiver(**_: Any) -> None:
        seen.append(os.environ.get(NAME))
        raise Made

    assert os.environ[NAME] == "Simple"
    open_transfer(receiver)
    assert seen == [None]
    assert os.environ[NAME] == "Simple"
