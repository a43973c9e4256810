"""A weight sync shard to shard against the gather baselines: bytes, time and pause, in one run.

The modes take turns on the same policy ranks and the same engine; the first round is dropped, medians are
reported. Before each sync the policy's weights change, and after it the engine must give the policy's own
logprobs, so that no mode can win by moving the wrong bytes.

    python benchmarks/transfer.py --out benchmarks/results/transfer.json
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from report import write
from transformers import LlamaConfig, LlamaForCausalLM

from rlstack.config.schema import RunConfig, TransferMethod
from rlstack.data.packing import pack
from rlstack.data.records import PreferencePair, Prompt, Rollout
from rlstack.orchestration.cluster import Cluster
from rlstack.orchestration.predict import predicted_receiver_pieces
from rlstack.orchestration.weight_sync import WeightSync
from rlstack.policy.architecture import Architecture
from rlstack.transfer.layout import volume

TOKENIZER = Path(__file__).resolve().parent.parent / "configs" / "tiny" / "seed"
MAX_MISMATCH = 1e-3  # nats, fp32
PROMPT = Prompt(task="probe", row=0, problem="", token_ids=tuple(range(5, 25)))


def main() -> None:
    arguments = parse()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        model = make_model(Path(scratch) / "model", arguments)
        for layout in arguments.layouts:
            print(f"{layout} ...", flush=True)
            rows += measure(layout, model, Path(scratch), rounds=arguments.rounds)
    write(rows, arguments.out, title="weight sync")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--rounds", type=int, default=6, help="per mode, the first of which is dropped")
    parser.add_argument(
        "--layouts",
        nargs="+",
        default=["tp2pp2-tp2", "tp2-tp1", "pp2-tp2"],
        help="trainer and engine layout, as in tp2pp2-tp2",
    )
    parser.add_argument("--hidden-size", type=int, default=768)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--vocab-size", type=int, default=16000)
    return parser.parse_args()


def make_model(folder: Path, arguments: argparse.Namespace) -> Path:
    """A random Llama: about 95 M parameters with the defaults."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=arguments.vocab_size,
        hidden_size=arguments.hidden_size,
        intermediate_size=4 * arguments.hidden_size,
        num_hidden_layers=arguments.layers,
        num_attention_heads=arguments.hidden_size // 64,
        num_key_value_heads=4,
        head_dim=64,
        max_position_embeddings=256,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    for path in TOKENIZER.glob("tokenizer*"):
        shutil.copy(path, folder)
    return folder


def measure(layout: str, model: Path, scratch: Path, *, rounds: int) -> list[dict[str, Any]]:
    """One row per mode, medians over the rounds but the first."""
    config = run_config(layout, model)
    engine_ranks = config.rollout.engines * config.rollout.tensor_parallel
    floor = share_bytes(Architecture.from_folder(model), config.rollout.tensor_parallel)
    samples: dict[str, list[dict[str, float]]] = defaultdict(list)
    with Cluster(config, scratch / layout) as cluster:
        policy, engines = cluster.launch()
        syncs = {
            method: WeightSync(policy, engines, config, host=cluster.host, method=method)
            for method in TransferMethod
        }
        version = 0
        for _ in range(rounds):
            for mode, sync in modes(syncs).items():
                version += 1
                policy.train_step(training_batches(config))
                samples[mode].append(sync(version))
                mismatch = largest_mismatch(policy, engines)
                if mismatch > MAX_MISMATCH:
                    raise RuntimeError(f"{layout} {mode}: logprobs differ by {mismatch:g} after the sync")
    return [
        {
            "layout": layout,
            "mode": mode,
            "bytes_per_engine_rank": int(taken[-1]["bytes"] / engine_ranks),
            "floor_bytes_per_engine_rank": floor,
            **{key: statistics.median(t[key] for t in taken[1:]) for key in ("total_s", "pause_s")},
        }
        for mode, taken in samples.items()
    ]


def share_bytes(architecture: Architecture, tensor_parallel: int) -> int:
    """What the largest shard of an engine rank holds of the weights, fp32: no transfer can bring less."""
    shares = [
        predicted_receiver_pieces(architecture, tensor_parallel=tensor_parallel, rank=rank)
        for rank in range(tensor_parallel)
    ]
    return max(sum(volume(piece.box) for piece in share) * 4 for share in shares)


def modes(syncs: dict[TransferMethod, WeightSync]) -> dict[str, Callable[[int], dict[str, float]]]:
    reshard = syncs[TransferMethod.reshard]
    return {
        "gather_rank0": lambda version: at_once(syncs[TransferMethod.gather_rank0], version),
        "gather_per_stage": lambda version: at_once(syncs[TransferMethod.gather], version),
        "reshard": lambda version: at_once(reshard, version),
        "reshard_begin_commit": lambda version: in_two(reshard, version),
    }


def at_once(sync: WeightSync, version: int) -> dict[str, float]:
    """Generation stands still for the whole transfer."""
    started = time.perf_counter()
    metrics = sync.run(version)
    return {
        "bytes": metrics["sync/bytes"],
        "total_s": time.perf_counter() - started,
        "pause_s": metrics["sync/pause_s"],
    }


def in_two(sync: WeightSync, version: int) -> dict[str, float]:
    """Generation stands still for the commit only, which comes when all has arrived."""
    started = time.perf_counter()
    sync.begin(version)
    sync.wait_sent(version)
    metrics = sync.commit(version)
    return {
        "bytes": metrics["sync/bytes"],
        "total_s": time.perf_counter() - started,
        "pause_s": metrics["sync/pause_s"],
    }


def run_config(layout: str, model: Path) -> RunConfig:
    """`layout` as in tp2pp2-tp2: the trainer's, then the engine's."""
    trainer, _, engine = layout.partition("-")
    config = RunConfig()
    config.policy.model = str(model)
    config.policy.tensor_parallel = 2 if "tp2" in trainer else 1
    config.policy.pipeline_parallel = 2 if "pp2" in trainer else 1
    config.rollout.tensor_parallel = int(engine.removeprefix("tp"))
    config.rollout.max_new_tokens = 16
    config.rollout.kv_cache_gib = 0.25
    config.optimizer.lr = 1e-4
    config.transfer.method = TransferMethod.reshard
    config.transfer.bucket_mib = 32
    return config


def training_batches(config: RunConfig) -> list[list[Any]]:
    """One pair: enough to change every weight."""
    chosen, rejected = (
        Rollout(token_ids=tokens, generator_logprobs=(0.0,) * 8, text="", finished=True, version=0)
        for tokens in (tuple(range(30, 38)), tuple(range(40, 48)))
    )
    pair = PreferencePair(prompt=PROMPT, chosen=chosen, rejected=rejected)
    return pack([pair], data_parallel=config.policy.data_parallel, micro_batch_tokens=4096, version=0)


def largest_mismatch(policy: Any, engines: Any) -> float:
    """Between the policy's and the engine's logprobs of the probe, nats."""
    ours, theirs = policy.probe(PROMPT.token_ids), engines.probe(PROMPT.token_ids)
    return max(abs(a - b) for engine in theirs for a, b in zip(ours, engine, strict=True))


if __name__ == "__main__":
    main()
