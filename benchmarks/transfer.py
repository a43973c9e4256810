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
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import torch
from report import write
from transformers import LlamaConfig, LlamaForCausalLM

from rlstack.config.schema import RunConfig, TransferMethod
from rlstack.data.records import Prompt, Rollout, TrainingExample
from rlstack.model.architecture import Architecture
from rlstack.orchestration.cluster import Cluster
from rlstack.orchestration.layout_text import EngineLayout, TrainerLayout, parse_engines, parse_trainer
from rlstack.orchestration.transfer_forecast import forecast
from rlstack.orchestration.weight_sync import WeightSync

TOKENIZER = Path(__file__).resolve().parent.parent / "configs" / "tiny" / "seed"
MODES = {  # method, and whether begin and commit are apart
    "gather_rank0": (TransferMethod.gather_rank0, False),
    "gather_per_stage": (TransferMethod.gather, False),
    "reshard": (TransferMethod.reshard, False),
    "reshard_begin_commit": (TransferMethod.reshard, True),
}
MEASURED = ("total_s", "pause_s", "extra_memory_bytes")
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
        default=["tp2pp2-tp2", "tp2-tp1", "pp2-tp2", "dp2-tp1"],
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
    architecture = Architecture.from_folder(model)
    trainer_text, engine_text = layout.split("-")
    trainer = parse_trainer(trainer_text, architecture)
    engine = parse_engines(engine_text, architecture)
    config = run_config(trainer, engine, model)
    samples: dict[str, list[dict[str, float]]] = defaultdict(list)
    with Cluster(config, scratch / layout) as cluster:
        policy, engines = cluster.launch()
        meeting = {"host": cluster.host, "probe": PROMPT.token_ids.tolist()}
        syncs = {m: WeightSync(policy, engines, config, method=m, **meeting) for m in TransferMethod}
        processes = process_tree(engines.roles[0].pid())
        version = 0
        for _ in range(rounds):
            for mode, (method, in_two) in MODES.items():
                version += 1
                policy.train_step([training_pair()], version=0)
                with PeakMemory(processes) as memory:
                    taken = sync(syncs[method], version, in_two=in_two)
                samples[mode].append(taken | {"extra_memory_bytes": memory.extra_bytes})
                syncs[method].probe(version)
    bucket_bytes = config.transfer.bucket_mib << 20
    figures = shard_figures(architecture, trainer, engine, bucket_bytes=bucket_bytes)
    engine_ranks = config.rollout.tensor_parallel
    return [
        {
            "layout": layout,
            "mode": mode,
            "bytes_per_engine_rank": int(taken[-1]["bytes"] / engine_ranks),
            **figures,
            **{key: statistics.median(t[key] for t in taken[1:]) for key in MEASURED},
        }
        for mode, taken in samples.items()
    ]


def sync(weight_sync: WeightSync, version: int, *, in_two: bool) -> dict[str, float]:
    """One round; in two, the engines are free to generate until everything has been sent."""
    started = paused = time.perf_counter()
    weight_sync.begin(version)
    if in_two:
        weight_sync.wait_sent(version)
        paused = time.perf_counter()
    metrics = weight_sync.commit(version)
    now = time.perf_counter()
    return {"bytes": metrics["sync/bytes"], "total_s": now - started, "pause_s": now - paused}


def shard_figures(
    architecture: Architecture, trainer: TrainerLayout, engine: EngineLayout, *, bucket_bytes: int
) -> dict[str, float]:
    """What no transfer can do without, and how long the plan takes to make, from predicted layouts."""
    figures = forecast(architecture, trainer, engine, itemsize=4, bucket_bytes=bucket_bytes, gb_per_s={})
    return {"floor_bytes_per_engine_rank": figures.max_floor_bytes, "plan_s": figures.plan_s}


class PeakMemory:
    """The most that one of `processes` holds beyond what it held at the start, in bytes (Linux)."""

    def __init__(self, processes: Sequence[psutil.Process]) -> None:
        self._processes = processes
        self.extra_bytes = 0

    def __enter__(self) -> PeakMemory:
        for process in self._processes:
            Path(f"/proc/{process.pid}/clear_refs").write_text("5")  # the peak counts from here
        self._before = [memory_bytes(process.pid, "VmRSS") for process in self._processes]
        return self

    def __exit__(self, *_: object) -> None:
        peaks = [memory_bytes(process.pid, "VmHWM") for process in self._processes]
        self.extra_bytes = max(p - b for p, b in zip(peaks, self._before, strict=True))


def memory_bytes(pid: int, field: str) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


def process_tree(pid: int) -> list[psutil.Process]:
    """An engine's own process and those of its ranks."""
    root = psutil.Process(pid)
    return [root, *root.children(recursive=True)]


def run_config(trainer: TrainerLayout, engine: EngineLayout, model: Path) -> RunConfig:
    config = RunConfig()
    config.policy.model = str(model)
    config.policy.tensor_parallel = trainer.tensor_parallel
    config.policy.pipeline_parallel = trainer.pipeline_parallel
    config.policy.data_parallel = trainer.data_parallel
    config.rollout.tensor_parallel = engine.tensor_parallel
    config.rollout.max_new_tokens = 16
    config.rollout.kv_cache_gib = 0.25
    config.schedule.sync_interval = None  # all steps are on rollouts of version 0
    config.schedule.reference_sync = 1
    config.optimizer.lr = 1e-4
    config.transfer.method = TransferMethod.reshard
    config.transfer.bucket_mib = 32
    return config


def training_pair() -> TrainingExample:
    """Enough to change every weight."""
    chosen, rejected = (
        Rollout(token_ids=tokens, generator_logprobs=(0.0,) * 8, text="", finished=True, version=0)
        for tokens in (tuple(range(30, 38)), tuple(range(40, 48)))
    )
    return TrainingExample.of_pair(prompt=PROMPT, chosen=chosen, rejected=rejected)


if __name__ == "__main__":
    main()
