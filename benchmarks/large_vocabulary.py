"""Whole runs of models with the vocabularies of real ones: TP2 x PP2 policy, engine of TP 2, all on CPUs.

Four layers with random weights, in the shapes of Llama 3.1 (untied, 128256 entries) and Qwen3 (tied, norms of
queries and keys, 151936 entries). Memory is what all processes of a run hold together, in proportion where
they share it (PSS), looked at twice a second. What is exported is held to the policy by transformers.

    python benchmarks/large_vocabulary.py --out benchmarks/results/large_vocabulary.json
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import psutil
from report import write

ROOT = Path(__file__).resolve().parent.parent
MODELS = {
    "Llama-3.1, 4 layers": ["Llama-3.1-8B", "--layers", "4", "--hidden", "1024"],
    "Qwen3, 4 layers": ["Qwen3-0.6B", "--layers", "4"],
}
CONTEXT = 512  # tokens
NUM_STEPS = 3
LEARNING_RATE = 1e-4
SETTINGS = [
    f"schedule.num_steps={NUM_STEPS}",
    # A checkpoint takes 36 bytes a parameter, 11 GiB here, of the memory that holds all the rest.
    "schedule.save_every=null",
    "schedule.sync_interval=1",
    "policy.tensor_parallel=2",
    "policy.pipeline_parallel=2",
    "policy.sequence_parallel=true",
    "rollout.tensor_parallel=2",
    "rollout.kv_cache_gib=0.25",
    "rollout.n=4",
    "rollout.max_new_tokens=24",
    "batch.prompts_per_step=4",
    "data.tasks.0.reward=alternating:reward",
    "evaluation.tasks.0.reward=alternating:reward",
    "evaluation.num_prompts=4",
    "evaluation.n=1",
    f"optimizer.lr={LEARNING_RATE}",
    "optimizer.warmup_steps=0",
]
# Random answers are all wrong, and nothing is learnt from rewards that are alike.
REWARD = "def reward(problem, answer, responses):\n    return [i % 2 for i in range(len(responses))]\n"
LEAST_FREE_GIB = 0.7  # of the machine, below which a run is ended
TIMEOUT_S = 1500.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        rows = [measured(name, Path(scratch) / f"model-{i}") for i, name in enumerate(arguments.models)]
    write(
        [*kept_rows(arguments.out, but=arguments.models), *rows],
        arguments.out,
        title="runs with large vocabularies on this machine's CPUs",
    )


def kept_rows(out: Path | None, *, but: Sequence[str]) -> list[dict[str, Any]]:
    """What an earlier run has left in `out` of other models: each takes minutes."""
    if out is None or not out.exists():
        return []
    return [row for row in json.loads(out.read_text())["rows"] if row["model"] not in but]


def measured(name: str, folder: Path) -> dict[str, Any]:
    """Make the model, train it, and look at what the run leaves."""
    folder.mkdir()
    seed = folder / "seed"
    tool = [sys.executable, ROOT / "tools" / "random_model.py", *MODELS[name], "--context", str(CONTEXT)]
    subprocess.run([*tool, "--dtype", "float32", "--out", seed], check=True, stdout=subprocess.DEVNULL)
    (folder / "alternating.py").write_text(REWARD)
    started = time.monotonic()
    peak_gib = train(folder, [f"policy.model={seed}", *SETTINGS])
    wall_s = time.monotonic() - started
    run = folder / "runs" / "large"
    steps = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    settings = json.loads((seed / "config.json").read_text())
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        change = pool.submit(largest_change, seed, run / "model").result()
        policy, other = pool.submit(policy_logprobs, run / "model"), pool.submit(hf_logprobs, run / "model")
        difference = max(abs(a - b) for a, b in zip(policy.result(), other.result(), strict=True))
    return {
        "model": name,
        "vocab_size": settings["vocab_size"],
        "tied": settings["tie_word_embeddings"],
        "policy": "TP2PP2",
        "engines": "1xTP2",
        "steps": len(steps),
        "trained_tokens": sum(step["tokens/trained"] for step in steps),
        "peak_pss_gib": peak_gib,
        "wall_s": wall_s,
        "syncs_verified": sum(bool(step.get("sync/verified")) for step in steps),
        "mismatch_logprob_abs_max": max(step["mismatch/logprob_abs_max"] for step in steps),
        "weight_change_abs_max": change,
        "exported_logprob_abs_max": difference,
    }


def train(folder: Path, overrides: Sequence[str]) -> float:
    """Run `rlstack train` in `folder`; the most GiB that its processes held together."""
    rlstack = Path(sys.executable).with_name("rlstack")
    command = [rlstack, "train", ROOT / "configs" / "quickstart.yaml", *overrides, "run.name=large"]
    with (folder / "train.log").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT)
        meter = Meter(process.pid)
        try:
            status = process.wait(TIMEOUT_S)
        finally:
            process.kill()
            meter.stop()
    if status != 0 or meter.was_short:
        short = f"the machine ran out of memory, with {meter.peak_gib:.1f} GiB in the run's processes"
        why = short if meter.was_short else f"ended with status {status}"
        raise SystemExit(f"{why}\n{(folder / 'train.log').read_text()[-3000:]}")
    return meter.peak_gib


class Meter(threading.Thread):
    """Looks at the memory of a process and all that it has started until `stop`."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._process = psutil.Process(pid)
        self._stopped = threading.Event()
        self.peak_gib = 0.0
        self.was_short = False
        self.start()

    def run(self) -> None:
        while not self._stopped.wait(0.5):
            self.peak_gib = max(self.peak_gib, sum(map(pss_gib, self._family())))
            if psutil.virtual_memory().available < LEAST_FREE_GIB * 2**30:
                self.was_short = True
                self._process.terminate()
                return

    def stop(self) -> None:
        self._stopped.set()
        self.join()

    def _family(self) -> list[psutil.Process]:
        try:
            return [self._process, *self._process.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []


def pss_gib(process: psutil.Process) -> float:
    """Of one process; 0 if it has ended."""
    try:
        text = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
    except OSError:
        return 0.0
    match = re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)
    return int(match[1]) / 2**20 if match else 0.0


def largest_change(seed: Path, trained: Path) -> float:
    """Between two folders of the same tensors: Adam's steps are each about the learning rate at most, so
    what is much larger would be a weight in another's place."""
    from safetensors import safe_open

    def tensors(folder: Path) -> dict[str, Path]:
        found: dict[str, Path] = {}
        for path in folder.glob("*.safetensors"):
            with safe_open(path, "pt") as file:
                found |= dict.fromkeys(file.keys(), path)
        return found

    before, after = tensors(seed), tensors(trained)
    assert before.keys() == after.keys(), before.keys() ^ after.keys()
    changes = []
    for name in before:
        with safe_open(before[name], "pt") as first, safe_open(after[name], "pt") as second:
            changes.append(float((first.get_tensor(name) - second.get_tensor(name)).abs().max()))
    assert min(changes) > 0, "a tensor was not trained"
    return max(changes)


PROBE = tuple(range(3, 43))  # tokens


def hf_logprobs(folder: Path) -> list[float]:
    """Of PROBE's tokens from the second on, as transformers computes them."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        logprobs = model(torch.tensor([PROBE])).logits[0, :-1].log_softmax(-1)
    return logprobs.gather(1, torch.tensor(PROBE[1:])[:, None])[:, 0].tolist()


def policy_logprobs(folder: Path) -> list[float]:
    """As `hf_logprobs`, of a policy on one rank."""
    from rlstack.collectives import SECRET, new_secret
    from rlstack.config.schema import RunConfig
    from rlstack.policy.worker import PolicyWorker

    config = RunConfig()
    config.policy.model = str(folder)
    worker = PolicyWorker(config, rank=0, world_size=1)
    os.environ[SECRET] = new_secret()  # which a run's driver gives to its ranks
    worker.start(*worker.serve("127.0.0.1"))
    logprobs = worker.probe(PROBE)
    worker.stop()
    assert logprobs is not None
    return list(logprobs)


if __name__ == "__main__":
    main()
