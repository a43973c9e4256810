"""One run of a TRL trainer on the tiny task, in TRL's own environment; benchmarks/peers.py starts it.

    PYTHONPATH=. .venv-trl/bin/python benchmarks/peers_trl/run.py JOB.json

Every rank writes what it saw of each step to job["out"], its number in place of {rank}. The verdicts are
those of rlstack.rewards: math-verify in this process, with a cache.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, TrainerCallback
from trl import GRPOConfig, GRPOTrainer
from trl.experimental.online_dpo import OnlineDPOConfig, OnlineDPOTrainer

from rlstack.data.boxed import boxed_answer
from rlstack.rewards.math_worker import is_equal


def main(job: dict[str, Any]) -> None:
    """Train as `job` says; peers.trl_job makes it."""
    torch.set_num_threads(job["threads"])
    tokenizer = AutoTokenizer.from_pretrained(job["model"])
    model = AutoModelForCausalLM.from_pretrained(job["model"], dtype=torch.float32)
    steps = StepLog(tokenizer.eos_token_id)
    model.generate = steps.timed(model.generate)
    trainer = build_trainer(job, model, tokenizer, steps)
    trainer.add_callback(steps)
    trainer.train()
    result = {"version": version("trl"), "transformers": version("transformers"), "steps": steps.rows}
    out = Path(job["out"].format(rank=trainer.accelerator.process_index))
    out.write_text(json.dumps(result), encoding="utf-8")


def build_trainer(
    job: dict[str, Any], model: PreTrainedModel, tokenizer: Any, steps: StepLog
) -> GRPOTrainer | OnlineDPOTrainer:
    """The trainer for job["objective"], without logs, checkpoints and progress bar."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    common = {
        "output_dir": job["folder"],
        "max_steps": job["num_steps"],
        "learning_rate": job["lr"],
        "lr_scheduler_type": "constant_with_warmup",
        "warmup_steps": job["warmup_steps"],
        "adam_beta1": job["adam_beta1"],
        "adam_beta2": job["adam_beta2"],
        "weight_decay": job["weight_decay"],
        "temperature": 1.0,
        "top_k": 0,
        "top_p": 1.0,
        "seed": job["seed"],
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,  # on by default; it would also turn off the cache of keys and values
        "ddp_find_unused_parameters": False,
        "report_to": [],
        "logging_strategy": "no",
        "save_strategy": "no",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }
    shared = {
        "model": model,
        "reward_funcs": steps.reward,
        "train_dataset": load_dataset("json", data_files=job["prompts"], split="train"),
        "processing_class": tokenizer,
    }
    if job["objective"] == "dpo":
        settings = OnlineDPOConfig(
            per_device_train_batch_size=job["rollouts_per_step"] // 2 // processes,  # it samples two of each
            max_new_tokens=job["max_new_tokens"],
            beta=[job["beta"]],
            adam_epsilon=job["adam_eps"],
            max_grad_norm=job["clip_grad"],
            train_sampling_strategy="sequential",
            **common,
        )
        return OnlineDPOTrainer(args=settings, **shared)
    # dr_grpo divides our loss, a sum over tokens, by the most tokens that there may be. Adam undoes that
    # where epsilon and the clipping of the gradient are divided too.
    longest = job["max_new_tokens"]
    settings = GRPOConfig(
        per_device_train_batch_size=job["rollouts_per_step"] // processes,
        num_generations=job["n"],
        max_completion_length=longest,
        beta=job["kl_scale"],
        scale_rewards="none",
        loss_type="dr_grpo",
        adam_epsilon=job["adam_eps"] / longest,
        max_grad_norm=job["clip_grad"] / longest,
        shuffle_dataset=False,
        **common,
    )
    return GRPOTrainer(args=settings, **shared)


class StepLog(TrainerCallback):
    """What every step took and gave, on this rank."""

    def __init__(self, eos_token_id: int) -> None:
        self.rows: list[dict[str, float]] = []
        self._eos_token_id = eos_token_id
        self._sums: dict[str, float] = {}
        self._start_s = 0.0

    def timed(self, generate: Callable[..., Any]) -> Callable[..., Any]:
        """`generate`, with the time that it takes added to the step's generate_s."""

        def run(*args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            output = generate(*args, **kwargs)
            self._add("generate_s", time.perf_counter() - started)
            return output

        return run

    def reward(
        self,
        prompts: Sequence[str],
        completions: Sequence[str],
        completion_ids: Sequence[Sequence[int]],
        answer: Sequence[str],
        **_: Any,
    ) -> list[float]:
        """1 for each completion whose boxed answer equals the gold one, else 0."""
        started = time.perf_counter()
        rewards = [verdict(gold, text) for gold, text in zip(answer, completions, strict=True)]
        self._add("reward_s", time.perf_counter() - started)
        self._add("rewards", sum(rewards))
        self._add("rollouts", len(rewards))
        self._add("tokens", sum(map(self._length, completion_ids)))
        return rewards

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self._start_s = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        now = time.perf_counter()
        self.rows.append({"step_s": now - self._start_s, **self._sums})
        self._start_s, self._sums = now, {}

    def _length(self, token_ids: Sequence[int]) -> int:
        """Up to the first end of text, which counts; online DPO's completions are padded."""
        ids = list(token_ids)
        return ids.index(self._eos_token_id) + 1 if self._eos_token_id in ids else len(ids)

    def _add(self, key: str, value: float) -> None:
        self._sums[key] = self._sums.get(key, 0.0) + value


def verdict(gold: str, text: str) -> float:
    answer = boxed_answer(text)
    return 0.0 if answer is None else _verdict(gold, answer)


@lru_cache(maxsize=100_000)
def _verdict(gold: str, answer: str) -> float:
    return float(is_equal(gold, answer))


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
