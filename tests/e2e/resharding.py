"""Real engines that take over weights from real senders, whose shards are cut from full tensors.

They are cut as TP 2 x PP 2 would cut them.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file
from tokenizers import Tokenizer, models
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast, Qwen2Config, Qwen3Config

from rlstack.config.schema import Landing, RunConfig, TransferMethod
from rlstack.data.records import Prompt
from rlstack.rendezvous import serve_store
from rlstack.rollout.engine import Engine
from rlstack.transfer.layout import Piece, View, decode
from rlstack.transfer.reshard import ReshardSender

Weights = dict[str, torch.Tensor]
Settings = dict[str, dict[str, Any]]  # of a RunConfig

HOST = "127.0.0.1"
TIMEOUT_S = 180.0  # an engine's start is in it
METHOD = TransferMethod.reshard
BUCKET_MIB = 1
TENSOR_PARALLEL, PIPELINE_PARALLEL, NUM_LAYERS = 2, 2, 2
NUM_SOURCES = TENSOR_PARALLEL * PIPELINE_PARALLEL
PROMPTS = [
    Prompt(task="t", row=i, problem="", token_ids=tuple(range(3 + i, 3 + i + length)))
    for i, length in enumerate([5, 9, 1, 15])  # below a block of vLLM's prefix cache on GPUs
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
    "wide": LlamaConfig(**SIZES | {"hidden_size": 256, "intermediate_size": 512}, head_dim=64),
    "one_kv_head": LlamaConfig(**SIZES | {"num_key_value_heads": 1}, head_dim=32),
    "qwen2": Qwen2Config(**SIZES | {"hidden_size": 128}),  # head_dim is hidden_size / num_attention_heads
    "qwen3": Qwen3Config(**SIZES, head_dim=32, tie_word_embeddings=True),
}
"""Families by name: blocks of 128 in "wide"; biases of q, k and v in Qwen2; norms of q and k, and a tied
head, in Qwen3.
"""


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
    quantised: list[str] = field(default_factory=list)  # names of weights, at the end


def serve(
    folder: str,
    tensor_parallel: int,
    landing: str,
    first_receiver: int,
    num_receivers: int,
    port: int,
    versions: Sequence[int],
    settings: Settings,
) -> Seen:
    """An engine of `folder` that takes over `versions`, generating while each of them arrives."""
    model = {"policy": {"model": folder}}
    config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(RunConfig), model, settings))
    assert isinstance(config, RunConfig)
    config.policy.tensor_parallel, config.policy.pipeline_parallel = TENSOR_PARALLEL, PIPELINE_PARALLEL
    config.rollout.tensor_parallel = tensor_parallel
    config.rollout.gpu_memory_fraction = 0.2
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
        return [group[0].token_ids.tolist() for group in groups]

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
    seen.quantised = engine.quantised_weights()
    engine.close()
    return seen


def send(
    port: int, source: int, num_receivers: int, rounds: Sequence[tuple[int, Weights]], backend: str
) -> None:
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
        backend=backend,
    )
    for version, weights in rounds:
        held.update(weights)
        sender.send(version)


def sync(
    pool: Executor,
    folder: Path,
    engines: Sequence[tuple[int, str]],
    rounds: Sequence[tuple[int, Path]],
    *,
    settings: Settings | None = None,
) -> list[Seen]:
    """Engines of `folder`, as (tensor parallel size, landing), through `rounds` of (version, new weights).

    settings: of the engines, beside those; with transfer.channel ipc, the weights are sent from the first GPU
    where there is one.
    """
    settings = settings or {}
    backend = "ipc" if settings.get("transfer", {}).get("channel") == "ipc" else "gloo"
    device = "cuda" if backend == "ipc" and torch.cuda.is_available() else "cpu"
    store = serve_store(HOST, timeout_s=TIMEOUT_S)
    num_receivers = sum(size for size, _ in engines)
    versions = [version for version, _ in rounds]
    weights = [(version, load_file(path / "model.safetensors", device=device)) for version, path in rounds]
    with ThreadPoolExecutor(NUM_SOURCES) as threads:
        senders = [
            threads.submit(send, store.port, i, num_receivers, weights, backend) for i in range(NUM_SOURCES)
        ]
        running: list[Future[Seen]] = []
        for i, (size, landing) in enumerate(engines):
            first = sum(s for s, _ in engines[:i])
            place = (first, num_receivers, store.port)
            running.append(pool.submit(serve, str(folder), size, landing, *place, versions, settings))
        seen = [engine.result() for engine in running]
        assert all(sender.exception() is None for sender in senders)
    return seen


def fresh(
    pool: Executor, folder: Path, tensor_parallel: int, landing: str, *, settings: Settings | None = None
) -> Seen:
    """An engine that has loaded `folder` from disk."""
    return pool.submit(serve, str(folder), tensor_parallel, landing, 0, 0, 0, [], settings or {}).result()
