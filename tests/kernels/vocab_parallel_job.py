"""One rank of a vocabulary in parts; a program, because the ranks are real processes.

python -m tests.kernels.vocab_parallel_job FOLDER PORT RANK SIZE: leaves what the operators gave this rank in
FOLDER, case by case, and which collectives they called.
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from rlstack_kernels import logprob_entropy
from safetensors.torch import save_file
from torch import Tensor

from rlstack.rendezvous import connect_store
from tests.kernels.oracle import MODES, Case, loss_of, make_case, outputs_of

NUM_TOKENS, HIDDEN, PADDED, VALID = 16, 21, 320, 300
# Rows of each rank. The last 20 are padding: of several ranks' rows, or all that one rank has.
SHARDS = {
    2: {"equal": [160, 160], "uneven": [37, 283], "padding_only": [310, 10]},
    4: {"equal": [80] * 4, "uneven": [1, 130, 127, 62], "padding_only": [100, 99, 101, 20]},
}


@dataclass(frozen=True)
class Job:
    mode: str = "recompute"
    shards: str = "equal"
    hidden_grad: str = "partial"
    implementation: str = "torch"
    operator: str = "linear"  # or logits
    dtype: torch.dtype = torch.float32
    num_passes: int = 1
    alone: bool = False  # every rank in a group of its own, with the whole vocabulary
    padded: bool = True


JOBS = {
    **{f"{mode}-{shards}": Job(mode, shards) for mode in MODES for shards in SHARDS[2]},
    **{f"{mode}-all_reduce": Job(mode, hidden_grad="all_reduce") for mode in MODES},
    **{f"{mode}-reduce_scatter": Job(mode, "uneven", "reduce_scatter") for mode in MODES},
    **{f"{mode}-triton": Job(mode, "uneven", implementation="triton") for mode in MODES},
    **{f"{shards}-logits": Job(shards=shards, operator="logits") for shards in SHARDS[2]},
    "triton-logits": Job(shards="uneven", operator="logits", implementation="triton"),
    "reference": Job(shards="uneven", implementation="reference", hidden_grad="all_reduce"),
    "bf16": Job("save", dtype=torch.bfloat16, hidden_grad="all_reduce"),
    "main_grad": Job(hidden_grad="reduce_scatter", num_passes=2),
    "alone": Job(alone=True, hidden_grad="reduce_scatter"),
}
if find_spec("liger_kernel"):
    JOBS |= {
        f"liger-{hidden_grad}": Job(
            "auto", hidden_grad=hidden_grad, implementation="liger", padded=False, num_passes=num_passes
        )
        for hidden_grad, num_passes in (("partial", 1), ("all_reduce", 1), ("reduce_scatter", 2))
    }


def whole_case(job: Job, size: int) -> Case:
    """With the first and the last column of every shard among the labels."""
    valid = VALID if job.padded else PADDED
    case = make_case(NUM_TOKENS, HIDDEN, PADDED, dtype=job.dtype, vocab_valid=valid, inv_temp=0.9)
    ends = torch.tensor(SHARDS[size][job.shards]).cumsum(0)
    edges = torch.cat([ends - 1, ends[:-1], torch.tensor([0])])
    edges = edges[edges < valid]
    case.labels.remainder_(valid)[: len(edges)] = edges
    case.labels[-1] = -100
    case.weight[valid:] = 100.0
    return case


@contextmanager
def recorded_collectives(calls: list[tuple[str, list[int]]]) -> Iterator[None]:
    """Names and shapes of what is given to torch.distributed."""
    names = ["all_gather", "all_gather_into_tensor", "all_reduce", "broadcast", "reduce", "reduce_scatter"]
    names += ["reduce_scatter_tensor", "all_gather_single", "all_to_all", "all_gather_object", "send", "recv"]
    originals = {name: getattr(dist, name) for name in names if hasattr(dist, name)}

    def recording(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def call(*args: Any, **kwargs: Any) -> Any:
            given = [argument for argument in args if isinstance(argument, Tensor)][-1]
            calls.append((name, list(given.shape)))
            return original(*args, **kwargs)

        return call

    for name, original in originals.items():
        setattr(dist, name, recording(name, original))
    yield
    for name, original in originals.items():
        setattr(dist, name, original)


def run(job: Job, rank: int, size: int, group: dist.ProcessGroup) -> tuple[dict[str, Tensor], dict[str, Any]]:
    case = whole_case(job, size)
    rows = [PADDED] if job.alone else SHARDS[size][job.shards]
    first = 0 if job.alone else sum(rows[:rank])
    weight = case.weight[first : first + rows[0 if job.alone else rank]].clone().requires_grad_()
    hidden = case.hidden
    if job.hidden_grad == "reduce_scatter" and not job.alone:
        hidden = hidden.chunk(size)[rank]
    hidden = hidden.clone().requires_grad_()
    main_grad = torch.zeros_like(weight) if job.num_passes > 1 else None
    own = replace(case, hidden=hidden, weight=weight)
    where = {"vocab_start": first, "group": group}
    forward: list[tuple[str, list[int]]] = []
    backward: list[tuple[str, list[int]]] = []
    for _ in range(job.num_passes):
        operand = weight
        with recorded_collectives(forward):
            if job.operator == "logits":
                operand = (case.hidden @ weight.detach().t()).requires_grad_()
                options = {"inv_temp": case.inv_temp, "vocab_valid": VALID}
                outputs = logprob_entropy(
                    operand, case.labels, implementation=job.implementation, **where, **options
                )
            else:
                options = {"hidden_grad": job.hidden_grad, "main_grad": main_grad}
                outputs = outputs_of(own, job.mode, job.implementation, **where, **options)
        with recorded_collectives(backward):
            loss_of(case, *outputs).backward()
    assert outputs.entropy is not None
    tensors = {"logprobs": outputs.logprobs, "entropy": outputs.entropy, "hidden_grad": hidden.grad}
    tensors["weight_grad"] = operand.grad if main_grad is None else main_grad
    present = {name: tensor.detach().contiguous() for name, tensor in tensors.items() if tensor is not None}
    return present, {"forward": forward, "backward": backward}


def main(folder: Path, port: int, rank: int, size: int) -> None:
    torch.set_num_threads(1)
    store = connect_store("127.0.0.1", port, timeout_s=60.0)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=timedelta(seconds=60))
    whole = dist.group.WORLD
    own = [dist.new_group([other]) for other in range(size)][rank]
    assert whole is not None
    for name, job in JOBS.items():
        tensors, calls = run(job, rank, size, own if job.alone else whole)
        save_file(tensors, folder / f"{name}-{rank}.safetensors")
        (folder / f"{name}-{rank}.json").write_text(json.dumps(calls))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), *(int(argument) for argument in sys.argv[2:]))
