"""Logprob and entropy of the label: time against the matrix products it needs, memory and error, in one run.

First, each way's results are held against fp64, for some of the tokens, from which alone the gradients come
then. After that all take turns on the same inputs; medians are reported.

    python benchmarks/kernels.py --out benchmarks/results/kernels.json

`forward` is without gradients. The floor is the matrix products' time, 2 THV FLOPs forward and 6 THV forward
and backward, at the rate of hidden @ weight.t() in the same rounds; `ratio_to_floor` allows 8 THV to those
that compute the logits twice. Where the logits are given, the floor is to read them, and for backward to
read and write them once more, at the rate of a copy. `peak_bytes` is above the inputs, results included.
`max_error` is of logprobs and entropies, in nats; the gradients' errors are relative, by their norms:
`gradient_error` of the hidden states or the given logits.
"""

from __future__ import annotations

import argparse
import statistics
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from kernel_baselines import variants
from kernel_cases import Case, Shape, make_case
from kernel_ceilings import Ceilings, seconds
from kernel_checks import check
from kernel_trials import Key, Trial, trials_of
from report import save, write

CPU_SHAPES = [(4096, 512, 32000)]
GPU_HEADS = [(4096, 128256), (4096, 16128), (8192, 16128), (3584, 152064)]
GPU_SHAPES = [(num_tokens, *head) for head in GPU_HEADS for num_tokens in (4096, 8192, 16384)]
COLUMNS = (
    "implementation",
    "entropy",
    "pass",
    "T",
    "H",
    "V",
    "dtype",
    "time_s",
    "flops_per_s",
    "ratio_to_matmul",
    "ratio_to_floor",
    "peak_bytes",
    "max_error",
    "gradient_error",
    "weight_gradient_error",
)


def main() -> None:
    arguments = parse()
    device = torch.device(arguments.device)
    on_gpu = device.type == "cuda"
    dtype = getattr(torch, arguments.dtype or ("bfloat16" if on_gpu else "float32"))
    rows: list[dict[str, Any]] = []
    for shape in arguments.shapes or (GPU_SHAPES if on_gpu else CPU_SHAPES):
        print(f"T, H, V = {shape} ...", flush=True)
        rows += measure(shape, dtype, device, rounds=arguments.rounds, only=arguments.only)
        if arguments.out is not None:
            save(rows, arguments.out)  # whoever stops this in the next shape has those before it
    write(rows, arguments.out, title="logprob and entropy")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--shapes", nargs="+", type=parse_shape, metavar="T,H,V")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rounds", type=int, default=3, help="of taking turns")
    parser.add_argument("--only", default="", help="only variants whose name has this in it")
    return parser.parse_args()


def parse_shape(text: str) -> Shape:
    num_tokens, hidden_size, vocab_size = map(int, text.split(","))
    return num_tokens, hidden_size, vocab_size


def measure(
    shape: Shape, dtype: torch.dtype, device: torch.device, *, rounds: int, only: str
) -> list[dict[str, Any]]:
    """The rows of one shape: what the machine can do, and each pass of each variant."""
    torch.compiler.reset()  # it compiles a function for a few shapes only
    found = check(shape, dtype, device, only)
    case = make_case(shape, dtype, device)
    names = {name for name, _ in found}
    loaded = [trial for v in variants(case) if v.name in names for trial in trials_of(v, case)]
    trials = [trial for trial in loaded if trial.key in found]
    ceilings = Ceilings(case)
    times = time_all(trials, ceilings, case, rounds)
    rows = ceilings.rows()
    for trial in trials:
        time_s = statistics.median(times[trial.key])
        rows.append(
            {
                "implementation": trial.variant.name,
                "entropy": "yes" if trial.variant.entropy else "no",
                "pass": trial.pass_,
                "time_s": time_s,
                **ceilings.columns(trial.variant, trial.pass_, time_s),
                **found[trial.key],
            }
        )
    common = dict(zip("THV", shape, strict=True)) | {"dtype": str(dtype).removeprefix("torch.")}
    return [{column: (common | row).get(column) for column in COLUMNS} for row in rows]


def time_all(trials: Sequence[Trial], ceilings: Ceilings, case: Case, rounds: int) -> dict[Key, list[float]]:
    """Seconds, round by round."""
    for trial in trials:
        if trial.variant.compiles:
            trial(case)
            trial.clean_up(case)
    times: dict[Key, list[float]] = defaultdict(list)
    for _ in range(rounds):
        ceilings.take_turn()
        for trial in trials:
            times[trial.key].append(seconds(partial(trial, case), case.hidden.device))
            trial.clean_up(case)
    return times


if __name__ == "__main__":
    main()
