"""Tokens per second generated and trained, by batch and layout: engine and policy each alone on the machine.

The engine answers the quickstart's prompts; the policy takes optimiser steps of DPO on pairs of answers of
`--answer-tokens` tokens. Both through the calls that training makes, medians over the rounds but the first.

The floor is the time of the model FLOPs (rlstack/model/flops.py; of generated tokens without attention) at
the rate that one product of about the batch's size has on one thread of this process, times the cores that
the layout can use. On GPUs it is that at their peak by the data sheet; there is none where that is not known.
`mfu` is the floor over the time: the model FLOPs utilisation of a machine whose peak is that rate.

    python benchmarks/throughput.py --out benchmarks/results/throughput.json
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from report import write
from whole_runs import CONFIG

from rlstack.config.load import load_config
from rlstack.config.machine import gpu_names
from rlstack.config.schema import Precision, RolloutPrecision, RunConfig
from rlstack.data.load import load_prompts
from rlstack.data.records import Prompt, Rollout, TrainingExample
from rlstack.model.architecture import Architecture
from rlstack.model.flops import ModelFlops
from rlstack.orchestration.cluster import Cluster
from rlstack.orchestration.engine_group import EngineGroup
from rlstack.orchestration.engine_seat import Sampling
from rlstack.orchestration.layout_text import TrainerLayout, parse_trainer
from rlstack.telemetry.peaks import common_peak_tflops

N = 8  # rollouts per prompt
PROMPT = Prompt(task="throughput", row=0, problem="", token_ids=tuple(range(5, 24)))


def main() -> None:
    arguments = parse()
    architecture = Architecture.from_folder(Path(load_config(CONFIG, arguments.set).policy.model))
    with tempfile.TemporaryDirectory() as scratch:
        rows = engine_rows(arguments, architecture, Path(scratch))
        for layout in arguments.layouts:
            rows += policy_rows(arguments, architecture, layout, Path(scratch))
    write(rows, arguments.out, title="throughput")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--rounds", type=int, default=6, help="per row, the first of which is dropped")
    parser.add_argument(
        "--prompts", type=int, nargs="+", default=[1, 4, 16, 32, 128], help=f"of {N} rollouts"
    )
    parser.add_argument("--pairs", type=int, nargs="+", default=[4, 16, 64], help="of one optimiser step")
    parser.add_argument("--answer-tokens", type=int, default=32, help="of the answers trained on")
    parser.add_argument("--layouts", nargs="+", default=["TP1", "TP2", "PP2", "DP2"], help="of the policy")
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="SETTING=VALUE", help="on top of the quickstart"
    )
    return parser.parse_args()


def engine_rows(
    arguments: argparse.Namespace, architecture: Architecture, scratch: Path
) -> list[dict[str, Any]]:
    """One engine of one rank, by the number of sequences that start together."""
    config = load_config(CONFIG, [f"rollout.max_num_seqs={N * max(arguments.prompts)}", *arguments.set])
    prompts, _ = load_prompts(config)
    rows = []
    with Cluster(config, scratch / "engine", policy=False) as cluster:
        engines = cluster.launch_engines()
        for num_prompts in arguments.prompts:
            print(f"engine, {num_prompts} prompts ...", flush=True)
            taken = [
                generate(engines, prompts.take(index, num_prompts), index)
                for index in range(arguments.rounds)
            ]
            tokens, time_s = (statistics.median(values) for values in zip(*taken[1:], strict=True))
            sequences = num_prompts * N
            floor = against_floor(
                architecture,
                int(ModelFlops.of(architecture).linear * tokens),
                tokens=tokens,
                time_s=time_s,
                rows=sequences,
                ranks=1,
                precision=engine_precision(config),
            )
            rows.append(
                {
                    "role": "engine",
                    "layout": "TP1",
                    "batch": sequences,
                    "tokens": tokens,
                    "time_s": time_s,
                    **floor,
                }
            )
    return rows


def generate(engines: EngineGroup, prompts: list[Prompt], step: int) -> tuple[int, float]:
    """Tokens sampled, and the seconds that it took."""
    sampling = Sampling(n=N, temperature=1.0, top_p=1.0)
    started = time.perf_counter()
    places = [(step, position) for position in range(len(prompts))]
    answers = engines.submit(prompts, sampling, stream="throughput", places=places)
    rollouts = [rollout for answer in answers for rollout in answer.result()]
    return sum(len(rollout.token_ids) for rollout in rollouts), time.perf_counter() - started


def policy_rows(
    arguments: argparse.Namespace, architecture: Architecture, layout: str, scratch: Path
) -> list[dict[str, Any]]:
    """The policy's ranks in one layout, by the pairs of a step; the reference is the policy itself."""
    sizes = parse_trainer(layout, architecture)
    num_ranks = sizes.tensor_parallel * sizes.pipeline_parallel * sizes.data_parallel
    config = policy_config(sizes, arguments.set)
    flops = ModelFlops.of(architecture)
    rows = []
    with Cluster(config, scratch / layout, engines=False) as cluster:
        policy = cluster.start_policy()
        for num_pairs in arguments.pairs:
            print(f"policy {layout}, {num_pairs} pairs ...", flush=True)
            pairs = [pair(index, arguments.answer_tokens) for index in range(num_pairs)]
            lengths = [len(PROMPT.token_ids) + arguments.answer_tokens - 1] * 2 * num_pairs
            tokens = sum(lengths)
            time_s = median_s(arguments.rounds, lambda pairs=pairs: policy.train_step(pairs, version=0))
            floor = against_floor(
                architecture,
                flops.training(flops.forward_of(lengths)),
                tokens=tokens,
                time_s=time_s,
                rows=tokens // sizes.data_parallel,
                ranks=num_ranks,
                precision=config.policy.precision,
            )
            of_row = {"role": "policy", "layout": layout, "batch": num_pairs}
            rows.append(of_row | {"tokens": tokens, "time_s": time_s, **floor})
    return rows


def policy_config(sizes: TrainerLayout, settings: Sequence[str]) -> RunConfig:
    return load_config(
        CONFIG,
        [
            f"policy.tensor_parallel={sizes.tensor_parallel}",
            f"policy.pipeline_parallel={sizes.pipeline_parallel}",
            f"policy.data_parallel={sizes.data_parallel}",
            "policy.micro_batch_tokens=1024",
            "schedule.sync_interval=null",  # all steps are on rollouts of version 0
            "schedule.reference_sync=1",  # the reference follows every step: no pass of its own
            *settings,
        ],
    )


def pair(index: int, answer_tokens: int) -> TrainingExample:
    """Two answers of `answer_tokens` tokens each."""
    chosen, rejected = (
        Rollout(
            token_ids=tuple(30 + (index + offset + place) % 200 for place in range(answer_tokens)),
            generator_logprobs=(0.0,) * answer_tokens,
            text="",
            finished=True,
            version=0,
        )
        for offset in (0, 100)
    )
    return TrainingExample.of_pair(prompt=PROMPT, chosen=chosen, rejected=rejected)


def median_s(rounds: int, work: Callable[[], object]) -> float:
    taken = []
    for _ in range(rounds):
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken[1:])


def against_floor(
    architecture: Architecture,
    flops: int,
    *,
    tokens: float,
    time_s: float,
    rows: int,
    ranks: int,
    precision: Precision,
) -> dict[str, float | None]:
    """What `flops` alone would take, in products of `rows` tokens."""
    if gpus := gpu_names():
        peak = common_peak_tflops(gpus, precision)
        rate = None if peak is None else ranks * peak * 1e12
    else:
        cores = min(ranks, len(os.sched_getaffinity(0)))
        rate = cores * matmul_flops_per_s(rows, architecture.hidden_size, architecture.ffn_size)
    floor_s = None if rate is None else flops / rate
    return {
        "tokens_per_s": tokens / time_s,
        "tflops": flops / time_s / 1e12,
        "floor_s": floor_s,
        "mfu": None if floor_s is None else floor_s / time_s,
    }


def engine_precision(config: RunConfig) -> Precision:
    """Of the products of the engine's layers."""
    if config.rollout.precision is not RolloutPrecision.auto:
        return Precision(config.rollout.precision.value)
    return Precision.bf16 if config.policy.precision is Precision.fp8 else config.policy.precision


def matmul_flops_per_s(rows: int, hidden_size: int, ffn_size: int) -> float:
    """Of one fp32 product [rows, hidden] x [hidden, ffn] on one thread."""
    torch.set_num_threads(1)
    left, right = torch.randn(rows, hidden_size), torch.randn(hidden_size, ffn_size)
    repetitions = max(3, int(2e8 / (rows * hidden_size * ffn_size)))

    def work() -> None:
        for _ in range(repetitions):
            left @ right

    return repetitions * 2 * rows * hidden_size * ffn_size / median_s(6, work)


if __name__ == "__main__":
    main()
