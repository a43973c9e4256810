"""The cost of a GRPO step in which groups have no contrast: their advantages are 0, and so is their loss.

One rank of the policy of the quickstart's model takes steps on rollouts of random tokens, with the lengths of
the tiny task's answers. Shares of groups without contrast take turns, and each is trained on twice: with the
rollouts that have no loss left out, as runs do, and with all of them. CPU seconds of the process, medians.

    zero_groups     share of the groups without contrast
    trained         loss: what has one; all: what has none too
    tokens          of the sequences that are passed through the model
    loss_total      of the last step, with the weights as they were at the beginning
    to_whole        step_cpu_s / that of a step in which all groups have contrast

    python benchmarks/zero_advantages.py --out benchmarks/results/zero_advantages.json
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from report import write

from rlstack.collectives import SECRET, new_secret
from rlstack.config.load import load_config
from rlstack.config.schema import RunConfig
from rlstack.credit.assign import has_zero_loss
from rlstack.data.packing import pack
from rlstack.data.records import MicroBatch, Prompt, Rollout, TrainingExample
from rlstack.policy.worker import PolicyWorker

CONFIG = Path(__file__).resolve().parent.parent / "configs" / "quickstart.yaml"
SETTINGS = [
    "objective.name=grpo",
    "policy.pipeline_parallel=1",
    "schedule.sync_interval=null",  # rollouts of version 0 in all steps
    "optimizer.lr=1e-12",  # the policy stays what it is
]
NUM_TOKENS = 300  # of the vocabulary, which has some more
PROMPT_TOKENS, ANSWER_TOKENS = 40, (12, 30)
ZERO_GROUPS = (0.0, 0.25, 0.5, 0.75, 1.0)
WARM_UP = 2  # steps of each case that are left out

Step = tuple[Sequence[Sequence[MicroBatch]], int]  # the micro-batches, and how many tokens they have


def main() -> None:
    arguments = parse()
    torch.set_num_threads(1)
    os.environ[SECRET] = new_secret()  # which the driver of a run gives to its ranks
    config = load_config(CONFIG, SETTINGS)
    worker = PolicyWorker(config, rank=0, world_size=1)
    worker.start(*worker.serve("127.0.0.1"))
    write(
        measure(worker, config, num_groups=arguments.groups, repetitions=arguments.repetitions),
        arguments.out,
        title=f"GRPO steps on {arguments.groups} groups of {config.rollout.n}",
    )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--groups", type=int, default=32, help="of one step")
    parser.add_argument("--repetitions", type=int, default=9, help="of each step, those that warm up besides")
    return parser.parse_args()


def measure(
    worker: PolicyWorker, config: RunConfig, *, num_groups: int, repetitions: int
) -> list[dict[str, Any]]:
    """One row for each share of groups without contrast, trained either way."""
    steps = {
        (share, trained): step_of(share, config, num_groups=num_groups, is_whole=trained == "all")
        for share in ZERO_GROUPS
        for trained in ("loss", "all")
    }
    seconds: dict[tuple[float, str], list[float]] = defaultdict(list)
    losses = {}
    for repetition in range(WARM_UP + repetitions):
        for case, (batches, _) in steps.items():
            started = time.process_time()
            metrics = worker.train_step(batches[0])
            if repetition >= WARM_UP:
                seconds[case].append(time.process_time() - started)
            assert metrics is not None, "the only rank is the leader"
            losses[case] = metrics["loss/total"]
    whole_s = statistics.median(seconds[0.0, "all"])
    return [
        {
            "zero_groups": share,
            "trained": trained,
            "tokens": steps[share, trained][1],
            "loss_total": losses[share, trained],
            "step_cpu_s": statistics.median(of_case),
            "least_cpu_s": min(of_case),
            "to_whole": statistics.median(of_case) / whole_s,
        }
        for (share, trained), of_case in seconds.items()
    ]


def step_of(share: float, config: RunConfig, *, num_groups: int, is_whole: bool) -> Step:
    """A step in which the first groups, `share` of all, have no contrast.

    is_whole: their rollouts are passed through the model all the same.
    """
    random = np.random.default_rng(0)
    num_zero = round(share * num_groups)
    examples = [
        rollout
        for group in range(num_groups)
        for rollout in rollouts(random, group, config.rollout.n, has_contrast=group >= num_zero)
    ]
    left_out = {} if is_whole else {"has_zero_loss": partial(has_zero_loss, objective=config.objective)}
    batches = pack(
        examples,
        data_parallel=1,
        micro_batch_tokens=config.policy.micro_batch_tokens,
        version=0,
        **left_out,
    )
    return batches, sum(len(batch.token_ids) for batch in batches[0] if batch.num_examples)


def rollouts(random: np.random.Generator, row: int, n: int, *, has_contrast: bool) -> list[TrainingExample]:
    """The n answers to one prompt, every other one right where they have contrast; n is even."""
    prompt = Prompt(task="a", row=row, problem="", token_ids=tokens(random, PROMPT_TOKENS))
    return [
        TrainingExample.of_rollout(
            prompt=prompt,
            rollout=Rollout(
                token_ids=(answer := tokens(random, int(random.integers(*ANSWER_TOKENS)))),
                generator_logprobs=tuple(random.normal(-5, 1, len(answer)).tolist()),
                text="",
                finished=True,
                version=0,
            ),
            advantage=(1.0 if i % 2 else -1.0) if has_contrast else 0.0,
        )
        for i in range(n)
    ]


def tokens(random: np.random.Generator, count: int) -> tuple[int, ...]:
    return tuple(random.integers(0, NUM_TOKENS, count).tolist())


if __name__ == "__main__":
    main()
