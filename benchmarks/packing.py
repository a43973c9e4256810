"""How well examples are packed: micro-batches, padding that they spare, FLOPs of ranks and micro-batches.

Examples are of the sizes that the objectives have: a pair of a prompt's rollouts (dpo), all of them
(group_dpo), one (grpo); 8 rollouts per prompt of log-normal lengths, model FLOPs of Llama-3.1-8B. Each case
is packed as training does it, and once more with tokens in the place of FLOPs.

    bound               the fewest micro-batches per rank that could hold the tokens, whatever the examples
    filled              share of the micro-batches' budgets
    padded_waste        share of padding if sequences were as long as the longest of their micro-batch
    rank_imbalance      most FLOPs of a data-parallel rank / mean
    ... by_tokens       the same where tokens are balanced
    to_bound            most FLOPs of a rank / the least possible: the mean, or those of the dearest example
    micro_imbalance     most FLOPs of a micro-batch / mean
    time_ms             of deciding, the least of three times

    python benchmarks/packing.py --out benchmarks/results/packing.json
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from report import write

from rlstack.data.bins import Bins, Item, fill_bins
from rlstack.model.flops import ModelFlops
from rlstack.model.known_models import KNOWN_MODELS

MODEL = "Llama-3.1-8B"
N = 8  # rollouts per prompt
REPETITIONS = 3
PROMPT_TOKENS = (50, 400)  # uniform
ROLLOUTS = {"dpo": 2, "group_dpo": N, "grpo": 1}  # of an example


@dataclass(frozen=True)
class Answers:
    """Log-normal, cut at `limit` tokens; `budget` is policy.micro_batch_tokens."""

    mean: float
    spread: float  # standard deviation / mean
    limit: int
    budget: int

    def draw(self, random: np.random.Generator, count: int) -> list[int]:
        """Lengths in tokens."""
        variance = math.log(1 + self.spread**2)
        drawn = random.lognormal(math.log(self.mean) - variance / 2, math.sqrt(variance), count)
        return [int(length) for length in np.clip(drawn, 1, self.limit)]


ANSWERS = {
    "short": Answers(mean=600, spread=0.6, limit=2048, budget=16384),
    "uneven": Answers(mean=600, spread=1.2, limit=4096, budget=16384),
    "long": Answers(mean=6000, spread=1.0, limit=32768, budget=65536),
}


def main() -> None:
    arguments = parse()
    flops = ModelFlops.of(KNOWN_MODELS[MODEL])
    write(list(rows(arguments, flops)), arguments.out, title=f"packing, FLOPs of {MODEL}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--prompts", type=int, nargs="+", default=[16, 64, 512], help="of one step")
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 4, 32], help="data-parallel ones")
    return parser.parse_args()


def rows(arguments: argparse.Namespace, flops: ModelFlops) -> Iterator[dict[str, Any]]:
    for objective, (name, answers), num_prompts in product(ROLLOUTS, ANSWERS.items(), arguments.prompts):
        examples = draw(answers, num_prompts, ROLLOUTS[objective])
        for num_ranks in arguments.ranks:
            case = {"objective": objective, "answers": name, "prompts": num_prompts, "dp": num_ranks}
            yield case | row(examples, num_ranks, answers.budget, flops)


def draw(answers: Answers, num_prompts: int, size: int) -> list[list[int]]:
    """The lengths of each example's sequences; of a pair's prompt only one pair is trained on."""
    random = np.random.default_rng(0)
    examples = []
    for _ in range(num_prompts):
        prompt = int(random.integers(*PROMPT_TOKENS))
        lengths = [prompt + answer - 1 for answer in answers.draw(random, N)]
        starts = [0] if size == 2 else range(0, N, size)
        examples += [lengths[start : start + size] for start in starts]
    return examples


def row(examples: Sequence[Sequence[int]], num_ranks: int, budget: int, flops: ModelFlops) -> dict[str, Any]:
    times_s = []
    for _ in range(REPETITIONS):
        started = time.perf_counter()
        bins = packed(examples, num_ranks, budget, flops.forward)
        times_s.append(time.perf_counter() - started)
    num_tokens, m = sum(map(sum, examples)), len(bins[0])
    contents = [[n for index in place for n in examples[index]] for rank in bins for place in rank]
    padded = sum(len(lengths) * max(lengths) for lengths in contents if lengths)
    of_ranks, of_micro_batches = rank_flops(bins, examples, flops), [flops.forward_of(c) for c in contents]
    mean = sum(of_ranks) / num_ranks
    by_tokens = rank_flops(packed(examples, num_ranks, budget, float), examples, flops)
    return {
        "micro_batches": m,
        "bound": max(1, math.ceil(num_tokens / budget / num_ranks)),
        "filled": num_tokens / (m * num_ranks * budget),
        "padded_waste": 1 - num_tokens / padded,
        "rank_imbalance": max(of_ranks) / mean,
        "rank_imbalance_by_tokens": max(by_tokens) / mean,
        "to_bound": max(of_ranks) / max(mean, *(flops.forward_of(lengths) for lengths in examples)),
        "micro_imbalance": max(of_micro_batches) * m / mean,
        "time_ms": 1e3 * min(times_s),
    }


def packed(
    examples: Sequence[Sequence[int]], num_ranks: int, budget: int, cost: Callable[[int], float]
) -> Bins:
    """As data.packing does it."""
    items = [Item(tokens=sum(lengths), cost=sum(map(cost, lengths))) for lengths in examples]
    return fill_bins(items, num_ranks=num_ranks, capacity=budget, multiple=1)


def rank_flops(bins: Bins, examples: Sequence[Sequence[int]], flops: ModelFlops) -> list[int]:
    """Of the forward pass of each rank."""
    return [sum(flops.forward_of(examples[index]) for place in rank for index in place) for rank in bins]


if __name__ == "__main__":
    main()
