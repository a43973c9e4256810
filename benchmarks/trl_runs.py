"""Runs of TRL's trainers with the quickstart's settings, each in processes of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from peers_steps import Step, trl_steps
from transformers import AutoTokenizer
from whole_runs import CONFIG

from rlstack.config.load import load_config
from rlstack.config.schema import RunConfig
from rlstack.data.load import load_prompts
from rlstack.data.records import Prompt

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = Path(__file__).with_name("peers_trl") / "run.py"
LIMIT_S = 900.0  # of a run


def trl_run(
    folder: Path, *, python: Path, objective: str, processes: int, num_steps: int
) -> tuple[list[Step], str]:
    """The steps of a run, and TRL's version; runs unless its results are in `folder` already.

    processes: as many ranks of DDP share a step's rollouts, and all cores are shared by them.
    """
    config = load_config(CONFIG)
    prompts = list(prompts_in_order(config, num_steps=num_steps, objective=objective))
    results = [folder / f"rank-{rank}.json" for rank in range(processes)]
    if not all(result.exists() for result in results):
        folder.mkdir(parents=True, exist_ok=True)
        write_prompts(config, prompts, folder / "prompts.jsonl")
        job = trl_job(config, folder, objective=objective, processes=processes, num_steps=num_steps)
        (folder / "job.json").write_text(json.dumps(job, indent=2), encoding="utf-8")
        start(python, folder, processes=processes)
    ranks = [json.loads(result.read_text(encoding="utf-8")) for result in results]
    prompt_tokens = fmean(len(prompt.token_ids) for prompt in prompts)
    return trl_steps([rank["steps"] for rank in ranks], prompt_tokens=prompt_tokens), ranks[0]["version"]


def prompts_in_order(config: RunConfig, *, num_steps: int, objective: str) -> Iterator[Prompt]:
    """Our own run's prompts, as many as TRL's trainer takes: its online DPO samples two answers of each."""
    sampler, _ = load_prompts(config)
    times = config.rollout.n // 2 if objective == "dpo" else 1
    for step in range(num_steps * times):
        yield from sampler.take(step, config.batch.prompts_per_step)


def write_prompts(config: RunConfig, prompts: Sequence[Prompt], path: Path) -> None:
    """As text that TRL's tokenizer makes the same tokens of."""
    tokenizer = AutoTokenizer.from_pretrained(config.policy.model)
    with path.open("w", encoding="utf-8") as file:
        for prompt in prompts:
            text = tokenizer.decode(prompt.token_ids)
            assert tokenizer(text)["input_ids"] == prompt.token_ids.tolist(), text
            file.write(json.dumps({"prompt": text, "answer": prompt.answer}) + "\n")


def trl_job(
    config: RunConfig, folder: Path, *, objective: str, processes: int, num_steps: int
) -> dict[str, Any]:
    """What peers_trl/run.py is to do."""
    optimizer, rollout = config.optimizer, config.rollout
    return {
        "model": str(Path(config.policy.model).resolve()),
        "prompts": str(folder / "prompts.jsonl"),
        "folder": str(folder / "trainer"),
        "out": str(folder / "rank-{rank}.json"),
        "objective": objective,
        "num_steps": num_steps,
        "threads": max(1, len(os.sched_getaffinity(0)) // processes),
        "seed": config.run.seed,
        "n": rollout.n,
        "rollouts_per_step": config.batch.prompts_per_step * rollout.n,
        "max_new_tokens": rollout.max_new_tokens,
        "beta": config.objective.beta,
        "kl_scale": config.objective.kl_scale,
        "lr": optimizer.lr,
        "warmup_steps": optimizer.warmup_steps,
        "adam_beta1": optimizer.adam_beta1,
        "adam_beta2": optimizer.adam_beta2,
        "adam_eps": optimizer.adam_eps,
        "weight_decay": optimizer.weight_decay,
        "clip_grad": optimizer.clip_grad,
    }


def start(python: Path, folder: Path, *, processes: int) -> None:
    """Run job.json to its end, or end this program with the last lines of its log."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--local-addr=127.0.0.1"]
    distributed = [*launcher, f"--nproc-per-node={processes}"] if processes > 1 else []
    environment = {
        "PYTHONPATH": str(ROOT),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "GLOO_SOCKET_IFNAME": "lo",
    }
    log, started = folder / "log", time.monotonic()
    print(f"{folder.name} ...", end=" ", flush=True, file=sys.stderr)
    with log.open("w", encoding="utf-8") as file:
        done = subprocess.run(
            [python, *distributed, PROGRAM, folder / "job.json"],
            cwd=folder,
            env=os.environ | environment,
            stdout=file,
            stderr=subprocess.STDOUT,
            timeout=LIMIT_S,
        )
    print(f"{time.monotonic() - started:.0f} s", file=sys.stderr)
    if done.returncode != 0:
        tail = log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:]
        raise SystemExit("\n".join([*tail, f"{folder.name} failed; its log: {log}"]))
