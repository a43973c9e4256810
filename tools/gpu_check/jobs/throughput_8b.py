"""Run benchmarks/throughput.py on a model with the layers of Llama-3.1-8B, with random weights.

All 32 layers with gradients and optimiser take more than a GPU has: --layers of them are made. In a dry run
it is the quickstart's own model.

python tools/gpu_check/jobs/throughput_8b.py FOLDER [--layers N] [--dry-run]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from details import leave

ROOT = Path(__file__).parents[3]
FILE = "gpu_throughput.json"
SIZES = (
    *("--prompts", "16", "64", "--pairs", "8", "32", "--answer-tokens", "1024", "--rounds", "4"),
    *("--layouts", "TP1"),
    *("--set", "policy.precision=bf16", "policy.micro_batch_tokens=16384", "rollout.max_new_tokens=1024"),
)
DRY_SIZES = ("--prompts", "1", "--pairs", "2", "--rounds", "2", "--layouts", "TP1")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--dry-run", action="store_true")
    given = parser.parse_args()
    out = given.folder / FILE
    out.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(prefix="gpu-check-model-") as scratch:
        sizes: tuple[str, ...] = DRY_SIZES
        if not given.dry_run:
            model = Path(scratch) / "model"
            call("tools/random_model.py", "Llama-3.1-8B", "--layers", str(given.layers), "--out", str(model))
            sizes = (*SIZES, f"policy.model={model}")
        call("benchmarks/throughput.py", "--out", str(out), *sizes)
    result = json.loads(out.read_text(encoding="utf-8"))
    kept = ("role", "layout", "batch", "tokens_per_s", "tflops", "mfu")
    rows = [{name: row[name] for name in kept} for row in result["rows"]]
    leave(cuda=bool(result["machine"]["gpus"]), file=out.name, layers=given.layers, rows=rows)


def call(script: str, *arguments: str) -> None:
    """Run a script of the project; exits with its status if that is not 0."""
    if status := subprocess.run([sys.executable, ROOT / script, *arguments], check=False).returncode:
        raise SystemExit(status)


if __name__ == "__main__":
    main()
