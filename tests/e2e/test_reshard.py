"""Trainer shards straight into live engines, against engines that loaded the same weights from files."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch

from rlstack.model.architecture import Architecture
from rlstack.orchestration.predict import predicted_receiver_pieces
from rlstack.transfer import outbox
from rlstack.transfer.arena import seal
from tests.e2e.resharding import FAMILIES, NUM_LAYERS, fresh, make_model, sync

pytestmark = pytest.mark.slow


@pytest.fixture
def folders(tmp_path, request) -> list[Path]:
    """Two models of the family that the test asks for."""
    return [make_model(tmp_path / str(seed), request.param, seed) for seed in range(2)]


def share_bytes(family: str, tensor_parallel: int, rank: int) -> int:
    """Bytes of what a worker of vLLM computes with, without the padding of the vocabulary."""
    config = FAMILIES[family]
    hidden, heads = config.hidden_size, config.num_attention_heads // tensor_parallel
    key_value_heads = max(1, config.num_key_value_heads // tensor_parallel)
    head_dim = getattr(config, "head_dim", None) or hidden // config.num_attention_heads
    rows = (heads + 2 * key_value_heads) * head_dim
    layer = rows * hidden + heads * head_dim * hidden + 2 * hidden
    layer += 3 * hidden * config.intermediate_size // tensor_parallel
    layer += {"qwen2": rows, "qwen3": 2 * head_dim}.get(family, 0)
    vocab_rows = 192 // tensor_parallel
    own_rows = max(0, min(130 - rank * vocab_rows, vocab_rows))
    tables = own_rows * hidden * (1 if config.tie_word_embeddings else 2)
    return 4 * (NUM_LAYERS * layer + tables + hidden)


@pytest.mark.parametrize(
    ("folders", "engines"),
    [
        pytest.param("llama", [(2, "staged")], marks=pytest.mark.thorough),
        pytest.param("one_kv_head", [(2, "direct")], marks=pytest.mark.thorough),
        pytest.param("qwen2", [(1, "staged"), (2, "direct")], marks=pytest.mark.thorough),
        ("qwen3", [(2, "staged"), (1, "direct")]),
    ],
    ids=["llama", "one_kv_head", "qwen2", "qwen3"],
    indirect=["folders"],
)
def test_an_engine_becomes_a_fresh_one_of_the_new_weights_and_back(engine_pool, folders, engines, request):
    old, new = folders
    family = request.node.callspec.id
    seen = sync(engine_pool, old, engines, [(1, new), (2, old)])
    for (size, landing), engine in zip(engines, seen, strict=True):
        assert engine.errors == []
        expected = fresh(engine_pool, new, size, landing)
        assert engine.tokens[1] == expected.tokens[0] != engine.tokens[0]
        assert engine.tokens[2] == engine.tokens[0]
        if landing == "direct":
            assert engine.checksums[1] == expected.checksums[0] != engine.checksums[0]
            assert engine.checksums[2] == engine.checksums[0]
        architecture = Architecture.from_folder(old)
        for rank, layout in enumerate(engine.layouts):
            predicted = predicted_receiver_pieces(architecture, tensor_parallel=size, rank=rank)
            assert sorted(layout, key=str) == sorted(predicted, key=str)
        shares = [share_bytes(family, size, rank) for rank in range(size)]
        assert engine.bytes_per_worker == [shares, shares]


def damage(monkeypatch) -> None:
    """Flip a bit of the first bucket that is sent, and of no other, after its digest was taken."""
    sent = itertools.count()

    def seal_and_damage(buffer: torch.Tensor, *args: Any, **kwargs: Any) -> None:
        seal(buffer, *args, **kwargs)
        if next(sent) == 0:
            buffer[0] ^= 1

    monkeypatch.setattr(outbox, "seal", seal_and_damage)


@pytest.mark.parametrize("folders", ["llama"], indirect=True)
def test_a_bucket_that_was_damaged_for_one_worker_is_refused_by_all(engine_pool, folders, monkeypatch):
    old, new = folders
    damage(monkeypatch)
    (engine,) = sync(engine_pool, old, [(2, "staged")], [(1, new)])
    assert len(engine.errors) == 1
    assert "worker 0: " in engine.errors[0] and "worker 1: " in engine.errors[0]
    assert engine.tokens[1] == engine.tokens[0]
    assert engine.checksums[1] == engine.checksums[0]
