"""Trainer shards straight into live engines, against engines that loaded the same weights from files.

The senders are real; the shards that they hold are cut from full tensors as TP 2 x PP 2 would cut them.
"""

from __future__ import annotations

import itertools
import multiprocessing as mp
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, models
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast, Qwen2Config, Qwen3Config

from rlstack.config.schema import Landing, RunConfig, TransferMethod
from rlstack.data.records import Prompt
from rlstack.orchestration.predict import predicted_receiver_pieces
from rlstack.policy.architecture import Architecture
from rlstack.rendezvous import serve_store
from rlstack.rollout.engine import Engine
from rlstack.transfer import outbox
from rlstack.transfer.arena import seal
from rlstack.transfer.layout import Piece, View
from rlstack.transfer.plan import decode
from rlstack.transfer.reshard import ReshardSender

pytestmark = pytest.mark.slow

Weights = dict[str, torch.Tensor]

HOST = "127.0.0.1"
TIMEOUT_S = 60.0
METHOD = TransferMethod.reshard
BUCKET_MIB = 1
TENSOR_PARALLEL, PIPELINE_PARALLEL, NUM_LAYERS = 2, 2, 2
NUM_SOURCES = TENSOR_PARALLEL * PIPELINE_PARALLEL
PROMPTS = [
    Prompt(task="t", row=i, problem="", token_ids=tuple(range(3 + i, 3 + i + length)))
    for i, length in enumerate([5, 9, 1, 17])
]
SIZES: dict[str, Any] = {
    "vocab_size": 130,  # not a multiple of the 64 to which vLLM pads
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": NUM_LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.1,
    "bos_token_id": 0,
    "eos_token_id": 1,
}
FAMILIES = {
    "llama": LlamaConfig(**SIZES, head_dim=32),
    "one_kv_head": LlamaConfig(**SIZES | {"num_key_value_heads": 1}, head_dim=32),
    "qwen2": Qwen2Config(**SIZES | {"hidden_size": 128}),  # head_dim is hidden_size / num_attention_heads
    "qwen3": Qwen3Config(**SIZES, head_dim=32, tie_word_embeddings=True),
}
"""Families by name: biases of q, k and v in Qwen2; norms of q and k, and a tied head, in Qwen3."""


def make_model(folder: Path, family: str, seed: int) -> Path:
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(FAMILIES[family])
    for parameter in model.parameters():
        if parameter.dim() == 1:  # norms and biases: what starts as a constant would arrive anywhere
            torch.nn.init.normal_(parameter, mean=0.5, std=0.2)
    model.save_pretrained(folder)
    tokenizer = Tokenizer(models.WordLevel({chr(0x4E00 + i): i for i in range(130)}, unk_token=chr(0x4E00)))
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=chr(0x4E01))
    wrapped.save_pretrained(folder)
    return folder


def sources(weights: Weights) -> list[list[Piece]]:
    """Pieces of every trainer rank: layers over stages; rows, or columns, over the ranks of a stage."""
    pieces: list[list[Piece]] = [[] for _ in range(NUM_SOURCES)]
    for name, tensor in weights.items():
        columns = "o_proj.weight" in name or "down_proj" in name
        replicated = "norm" in name
        if ".layers." in name:
            stages = [int(name.split(".")[2]) * PIPELINE_PARALLEL // NUM_LAYERS]
        else:
            stages = [0] if "embed" in name else [PIPELINE_PARALLEL - 1]
        for stage in stages:
            for rank in range(TENSOR_PARALLEL):
                box = [[0, size] for size in tensor.shape]
                if not replicated:
                    share = tensor.shape[columns] // TENSOR_PARALLEL
                    box[columns] = [rank * share, (rank + 1) * share]
                offset = sum(low * stride for (low, _), stride in zip(box, tensor.stride(), strict=True))
                view = View(name, offset, tensor.stride())
                piece = Piece(name, tuple((low, high) for low, high in box), view)
                pieces[stage * TENSOR_PARALLEL + rank].append(piece)
    return pieces


@dataclass
class Seen:
    """What an engine did: at the start and after each version."""

    tokens: list[list[tuple[int, ...]]] = field(default_factory=list)
    checksums: list[list[dict[str, str]]] = field(default_factory=list)  # per worker
    bytes_per_worker: list[list[float]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    layouts: list[list[Piece]] = field(default_factory=list)  # per worker


def serve(
    folder: str,
    tensor_parallel: int,
    landing: str,
    first_receiver: int,
    num_receivers: int,
    port: int,
    versions: Sequence[int],
) -> Seen:
    """An engine of `folder` that takes over `versions`, generating while each of them arrives."""
    config = RunConfig()
    config.policy.model = folder
    config.policy.tensor_parallel, config.policy.pipeline_parallel = TENSOR_PARALLEL, PIPELINE_PARALLEL
    config.rollout.tensor_parallel = tensor_parallel
    config.rollout.max_new_tokens = 30
    config.rollout.kv_cache_gib = 0.1
    config.transfer.method = METHOD
    config.transfer.landing = Landing(landing)
    config.transfer.bucket_mib = BUCKET_MIB
    config.transfer.timeout_s = TIMEOUT_S
    engine = Engine(config, index=0)
    seen = Seen()

    def greedy() -> list[tuple[int, ...]]:
        groups = engine.generate(PROMPTS, n=1, temperature=0.0, top_p=1.0, seeds=[0] * len(PROMPTS))
        assert {group[0].version for group in groups} == {engine.version}
        return [group[0].token_ids for group in groups]

    def look() -> None:
        seen.tokens.append(greedy())
        seen.checksums.append(engine._llm.collective_rpc("compute_weight_checksums"))

    look()
    if versions:
        engine.open_transfer(
            HOST, port, method=METHOD, first_receiver=first_receiver, num_receivers=num_receivers
        )
        seen.layouts = [decode(answer["layout"]) for answer in engine._call("layout")]
    for version in versions:
        try:
            engine.begin_receive(version, METHOD)
            assert greedy() == seen.tokens[-1]
            stats = engine.commit_receive(version, METHOD)
            assert stats["verified"] == 1.0 and engine.version == version
            seen.bytes_per_worker.append([worker["bytes"] for worker in stats["workers"]])
        except RuntimeError as error:
            seen.errors.append(str(error))
        look()
    engine.close()
    return seen


def send(port: int, source: int, num_receivers: int, rounds: Sequence[tuple[int, Weights]]) -> None:
    held = dict(rounds[0][1])
    sender = ReshardSender(
        store_host=HOST,
        store_port=port,
        source=source,
        num_sources=NUM_SOURCES,
        num_receivers=num_receivers,
        pieces=sources(held)[source],
        tensor_of=lambda name: held[name],
        bucket_bytes=BUCKET_MIB * 2**20,
        timeout_s=TIMEOUT_S,
        backend="gloo",
    )
    for version, weights in rounds:
        held.update(weights)
        sender.send(version)


@pytest.fixture(scope="session")
def engine_pool(pytestconfig):
    """Processes for engines, one for each engine that is ever started."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.syspath_prepend(str(pytestconfig.rootpath))  # the process imports the test file by name
        context = mp.get_context("spawn")
        with ProcessPoolExecutor(2, mp_context=context, max_tasks_per_child=1) as pool:
            yield pool


@pytest.fixture
def folders(tmp_path, request) -> list[Path]:
    """Two models of the family that the test asks for."""
    return [make_model(tmp_path / str(seed), request.param, seed) for seed in range(2)]


def sync(
    pool, folder: Path, engines: Sequence[tuple[int, str]], rounds: Sequence[tuple[int, Path]]
) -> list[Seen]:
    """Engines of `folder`, as (tensor parallel size, landing), through `rounds` of (version, new weights)."""
    store = serve_store(HOST, timeout_s=TIMEOUT_S)
    num_receivers = sum(size for size, _ in engines)
    versions = [version for version, _ in rounds]
    weights = [(version, load_file(path / "model.safetensors")) for version, path in rounds]
    with ThreadPoolExecutor(NUM_SOURCES) as threads:
        senders = [threads.submit(send, store.port, i, num_receivers, weights) for i in range(NUM_SOURCES)]
        running: list[Future[Seen]] = []
        for i, (size, landing) in enumerate(engines):
            first = sum(s for s, _ in engines[:i])
            running.append(
                pool.submit(serve, str(folder), size, landing, first, num_receivers, store.port, versions)
            )
        seen = [engine.result() for engine in running]
        assert all(sender.exception() is None for sender in senders)
    return seen


def fresh(pool, folder: Path, tensor_parallel: int, landing: str) -> Seen:
    """An engine that has loaded `folder` from disk."""
    return pool.submit(serve, str(folder), tensor_parallel, landing, 0, 0, 0, []).result()


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
        ("llama", [(2, "staged")]),
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
