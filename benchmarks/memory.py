"""The planner's memory model against what megatron-core and vLLM really allocate, on CPUs.

Weights, gradients, optimiser, reference and cache are bytes of the real objects; activations what autograd
keeps, by its hooks; the peak is all that torch allocates within a step, which the model takes for activations
and the largest workspace.

    python benchmarks/memory.py --out benchmarks/results/memory.json
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from report import write

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))  # the tests hold the programs whose memory is counted

from rlstack.model.architecture import Architecture  # noqa: E402
from rlstack.tuning.planning.activation_memory import held_activations  # noqa: E402
from rlstack.tuning.planning.activations import Layers  # noqa: E402
from rlstack.tuning.planning.assumptions import Assumptions  # noqa: E402
from rlstack.tuning.planning.demand import Demand  # noqa: E402
from rlstack.tuning.planning.engine_memory import engine_worker_memory  # noqa: E402
from rlstack.tuning.planning.hardware import gpu_of  # noqa: E402
from rlstack.tuning.planning.policy_memory import model_states  # noqa: E402
from rlstack.tuning.planning.workspace import backward_workspace  # noqa: E402
from tests.distributed.memory_ranks import MIDDLE, demand_of, job_of, layout_of, measure  # noqa: E402
from tests.distributed.policy_ranks import LAYOUTS, Job, seed_model  # noqa: E402
from tests.e2e.test_engine_memory import allocated, settings  # noqa: E402

TINY = ROOT / "configs" / "tiny" / "seed"
NUM_TOKENS = {"tiny": 256, "middle": 512}  # of a micro-batch
ALL_LAYOUTS = LAYOUTS | {
    "selective": {"recompute": "selective"},
    "full": {"recompute": "full"},
    "tp2_sp_full": {**LAYOUTS["tp2_sp"], "recompute": "full"},
    "pp2_vp2": {**LAYOUTS["pp2"], "virtual_pipeline": 2},
    "cp2": {"context_parallel": 2},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--layouts", nargs="+", default=list(ALL_LAYOUTS), choices=list(ALL_LAYOUTS))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        models = {"tiny": TINY, "middle": with_tokenizer(seed_model(MIDDLE, Path(scratch) / "middle"))}
        rows = policy_rows(models, Path(scratch), layouts=arguments.layouts)
        rows += [row for name, folder in models.items() for row in engine_rows(name, folder)]
    write(rows, arguments.out, title="bytes of the model against bytes measured")


def with_tokenizer(folder: Path) -> Path:
    """vLLM wants one."""
    for path in TINY.glob("tokenizer*"):
        shutil.copy(path, folder)
    return folder


def policy_rows(models: Mapping[str, Path], scratch: Path, *, layouts: Sequence[str]) -> list[dict[str, Any]]:
    """Of every model in every layout: the rank that has most of each kind."""
    jobs = {
        f"{model} {layout}": job_of(folder, ALL_LAYOUTS[layout], num_tokens=NUM_TOKENS[model], num_steps=2)
        for model, folder in models.items()
        for layout in layouts
    }
    reports = measure(scratch, jobs)
    return [row for name, job in jobs.items() for row in rows_of(name, job, reports[name])]


def rows_of(name: str, job: Job, reports: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    demand, layout = demand_of(job), layout_of(job)
    fullest = {}
    for report in reports:
        stage = report["stage"]
        states, _ = model_states(demand, layout, stage=stage)
        held, _ = held_activations(demand, layout, stage=stage, layers=Layers.local)
        workspace = backward_workspace(demand, layout, stage=stage, layers=Layers.local)
        predicted = {figure.name: figure.value for figure in states}
        # Where the optimiser ends, gloo gathers the weights through a copy of them; NCCL does not.
        peak = max(held.value + workspace.value, predicted["weights"])
        predicted |= {held.name: held.value, "peak": peak}
        measured = {"weights": "parameters", "activations": "saved"}  # names in the report
        for what, value in predicted.items():
            found = (report[measured.get(what, what)], value)
            fullest[what] = max(fullest.get(what, found), found)
    return [row(name, what, value, found) for what, (found, value) in fullest.items()]


def engine_rows(name: str, folder: Path) -> list[dict[str, Any]]:
    """Of a vLLM engine, in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        found = pool.submit(allocated, str(folder)).result()
    demand = Demand(
        config=settings(str(folder)),
        architecture=Architecture.from_folder(folder),
        gpu=gpu_of("h200"),
        assumptions=Assumptions(),
        intervals=(1,),
    )
    memory = engine_worker_memory(demand, tensor_parallel=1)
    add = partial(row, f"{name} engine")
    return [
        add("weights", memory.weights.value, found["weights"]),
        add("cache per token", memory.kv_bytes_per_token.value, found["kv_cache"] / found["kv_tokens"]),
    ]


def row(name: str, what: str, predicted: float, measured: float) -> dict[str, Any]:
    return {
        "run": name,
        "what": what,
        "model_bytes": round(predicted),
        "measured_bytes": round(measured),
        "model_over_measured": predicted / measured,
    }


if __name__ == "__main__":
    main()
