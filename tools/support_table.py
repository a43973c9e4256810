"""Write the tables of where what has been run into README.md and docs/index.md: python tools/support_table.py

The columns of GPUs come from benchmarks/results/gpu_*.json, which tools/gpu_check writes: a cell names the
parts that passed, in the file's words, and those that did not. Dry runs do not count. A test holds the pages
to this.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
BEGIN, END = "<!-- support table: python tools/support_table.py -->", "<!-- end of the support table -->"
NOT_YET = "not yet run"

KERNELS = ("kernels", "kernels-large", "kernel-benchmark")
ONE_GPU_RUNS, RUNS = ("colocated-bf16",), ("colocated-bf16", "split-bf16")
ONE_GPU_SYNC, SYNC = ("cuda-ipc", "ipc-tests", "nccl-self"), ("nccl-transfer",)


class Row(NamedTuple):
    """A line: a capability, the CPU's cell, and the parts of each column of GPUs; None: does not apply."""

    name: str
    cpu: str
    gpu_columns: tuple[tuple[str, ...] | None, ...]


class Found(NamedTuple):
    """The newest outcome of a part, from one file."""

    outcome: str
    shows: str
    where: str  # GPUs
    date: str


README_ROWS = (
    Row(
        "the loop: vLLM, math-verify, reward models, DPO to GRPO, evaluation, tuning, report", "run", (RUNS,)
    ),
    Row(
        "tensor, pipeline, context, data and sequence parallelism; several nodes",
        "run; the nodes as hosts of namespaces too: `make multihost`",
        ((),),
    ),
    Row(
        "Llama, Mistral, Qwen2, Qwen3, in and out of Hugging Face folders",
        "run, small shapes",
        (("throughput-8b",),),
    ),
    Row("weight sync, shard to shard, verified", "run: gloo, shared memory", ((*ONE_GPU_SYNC, *SYNC),)),
    Row(
        "fused logprob and entropy kernels, in torch and Triton",
        "run; Triton interpreted, and compiled for H100s",
        (KERNELS,),
    ),
    Row("BF16 policy, BF16 and FP8 engines", "run", ((*RUNS, "colocated-fp8"),)),
    Row("FP8 policy (Transformer Engine)", "refused", (("colocated-fp8",),)),
    Row("checkpoints, resume, recovery of lost processes", "run", (("resume",),)),
)
INDEX_ROWS = (
    Row(
        "the loop: vLLM, math-verify, reward models, DPO to GRPO, evaluation, tuning",
        "run",
        (ONE_GPU_RUNS, ("split-bf16",)),
    ),
    Row("tensor, pipeline, data and sequence parallelism, distributed optimiser", "run", (None, ())),
    Row("virtual pipeline, uneven stages, context parallelism, recomputation", "run", ((), ())),
    Row(
        "Llama, Mistral, Qwen2, Qwen3 in and out of Hugging Face folders",
        "run, small shapes; two with real vocabularies",
        (("throughput-8b",), ()),
    ),
    Row("packing by token budget, balanced by FLOPs", "run", (("throughput-8b",), ())),
    Row(
        "logprob kernels in Triton",
        "under Triton's interpreter, and compiled for H100-class GPUs",
        (KERNELS, ()),
    ),
    Row(
        "BF16 policy, FP32 weights in the optimiser",
        "run; engines in FP32, BF16, FP8",
        (ONE_GPU_RUNS, ("split-bf16",)),
    ),
    Row("FP8 policy (Transformer Engine)", "refused", (("colocated-fp8",), ())),
    Row(
        "FP8 rollouts, quantised again at every sync",
        "run, one scale per channel",
        (("colocated-fp8",), ()),
    ),
    Row(
        "weight sync: reshard, gather; network, shared memory",
        "run",
        (ONE_GPU_SYNC, (*SYNC, "split-bf16")),
    ),
    Row(
        "policy and engines on the same GPUs, engines asleep while it trains",
        "the shifts run, nobody sleeps",
        (ONE_GPU_RUNS, ()),
    ),
    Row("several nodes", "run, as hosts of namespaces on one machine (`make multihost`)", (None, ())),
    Row("checkpoints, resume, recovery", "run", (("resume",), ())),
    Row(
        "timeline, report, throughput; power and use by NVML",
        "run; NVML played",
        (("nvml", "colocated-bf16"), ()),
    ),
)
TABLES = {
    ROOT / "README.md": (("", "CPU, two cores", "GPUs"), README_ROWS),
    ROOT / "docs" / "index.md": (("", "CPU", "one GPU", "several GPUs"), INDEX_ROWS),
}


def newest(results: Iterable[Mapping[str, Any]]) -> dict[str, Found]:
    """By part its newest outcome, of those that were started; of one day, the worse."""
    found: dict[str, Found] = {}
    for result in results:
        if result["dry_run"] or not result["machine"]["gpus"]:
            continue
        names = sorted(set(result["machine"]["gpus"]))
        for row in result["rows"]:
            if row["outcome"] not in ("passed", "failed", "timed out"):
                continue
            now = Found(row["outcome"], row["shows"], " and ".join(names), result["date"])
            before = found.get(row["part"])
            if before is None or (now.date, now.outcome != "passed") > (
                before.date,
                before.outcome != "passed",
            ):
                found[row["part"]] = now
    return found


def cell(parts: Sequence[str] | None, found: Mapping[str, Found]) -> str:
    """A cell: the `parts` that were run, that failed and that are missing."""
    if parts is None:
        return ""
    known = [found[part] for part in parts if part in found]
    passed, failed = ([f for f in known if (f.outcome == "passed") is wanted] for wanted in (True, False))
    if not known:
        return NOT_YET
    pieces = [f"run: {_list(passed)}"] * bool(passed) + [f"failed: {_list(failed)}"] * bool(failed)
    missing = len(parts) - len(known)
    return ". ".join(pieces) + f". {missing} of {len(parts)} checks not yet run" * bool(missing)


def table(head: Sequence[str], rows: Sequence[Row], found: Mapping[str, Found]) -> str:
    """Markdown."""
    lines = [f"| {' | '.join(head)} |".replace("|  |", "| |", 1), "|" + "---|" * len(head)]
    for row in rows:
        cells = [row.name, row.cpu, *(cell(parts, found) for parts in row.gpu_columns)]
        lines.append("".join(f"| {text} " if text else "| " for text in cells) + "|")
    return "\n".join(lines)


def page(text: str, table: str) -> str:
    """`text` with what stands between the marks replaced by `table`."""
    pattern = re.compile(f"{re.escape(BEGIN)}\n.*?{re.escape(END)}", re.DOTALL)
    assert len(pattern.findall(text)) == 1, "the page has no marks for the table"
    return pattern.sub(lambda _: f"{BEGIN}\n\n{table}\n\n{END}", text)


def results() -> list[dict[str, Any]]:
    """The files of tools/gpu_check that are there; not those of benchmarks that it has run."""
    read = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("gpu_*.json"))]
    return [result for result in read if "profile" in result]


def pages() -> dict[Path, str]:
    """The pages as they have to be."""
    found = newest(results())
    return {
        path: page(path.read_text(encoding="utf-8"), table(head, rows, found))
        for path, (head, rows) in TABLES.items()
    }


def _list(found: Sequence[Found]) -> str:
    return "; ".join(f"{f.shows} ({f.where}, {f.date})" for f in found)


def main() -> None:
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
        print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
