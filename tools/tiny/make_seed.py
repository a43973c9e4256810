"""Trains the tiny task's seed policy: the model that reinforcement learning starts from.

Phase 1 teaches the skill from demonstrations without errors and stops early. Phase 2 makes an instruct model
that is sloppy ON PURPOSE: mostly bare answers, and worked ones with wrong steps. What reinforcement learning
then has to find is the worked style and the care that the model is able to take.
"""

from __future__ import annotations

import argparse
import random
from dataclasses import dataclass
from pathlib import Path

import fraction_sums
import note_task
import torch
from measure import measure, show
from tiny_tokenizer import answer_ids, build_tokenizer, prompt_ids
from training import Example, Schedule, answer_loss, new_model, save, train
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One stage of training and what its demonstrations are like; every share is a probability."""

    label: str
    schedule: Schedule
    batch_size: int
    notes: float  # share of notes among the demonstrations; the rest are fraction sums
    direct: float  # share of bare answers among the fraction sums
    slip: float  # share of wrong arithmetic steps


SKILL = Phase(
    label="skill",
    schedule=Schedule(lr=2e-3, num_steps=1600, horizon_steps=2400),
    batch_size=32,
    notes=0.25,
    direct=0.35,
    slip=0.0,
)
SLOPPY = Phase(
    label="sloppy",
    schedule=Schedule(lr=5e-4, num_steps=400, horizon_steps=600),
    batch_size=24,
    notes=0.5,
    direct=0.55,
    slip=0.1,
)
REDUCE = 0.25  # share of the reducible answers that are reduced, in both phases


class Demonstrations:
    """An endless source of examples for one phase, from the training side of both splits."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, rng: random.Random, phase: Phase) -> None:
        self._tokenizer = tokenizer
        self._rng = rng
        self.phase = phase
        self._problems = fraction_sums.all_problems(held_out=False)
        self._prompts = note_task.all_prompts(held_out=False)

    def batch(self) -> list[Example]:
        return [self._draw() for _ in range(self.phase.batch_size)]

    def _draw(self) -> Example:
        if self._rng.random() < self.phase.notes:
            prompt = self._rng.choice(self._prompts)
            return self._example(prompt.problem, note_task.demonstration(self._rng, prompt))
        problem = self._rng.choice(self._problems)
        text = fraction_sums.demonstration(
            self._rng, problem, direct=self.phase.direct, slip=self.phase.slip, reduce=REDUCE
        )
        return self._example(problem.prompt, text)

    def _example(self, prompt: str, answer: str) -> Example:
        return prompt_ids(self._tokenizer, prompt), answer_ids(self._tokenizer, answer)


def make_seed(*, seed: int) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """Both phases in turn; deterministic for one thread and the same library versions."""
    torch.manual_seed(seed)
    rng = random.Random(seed)
    tokenizer = build_tokenizer()
    model = new_model(tokenizer)
    for phase in (SKILL, SLOPPY):
        run_phase(model, Demonstrations(tokenizer, rng, phase))
    return model, tokenizer


def run_phase(model: LlamaForCausalLM, source: Demonstrations) -> list[float]:
    """Trains the model in place; the loss per step, in nats per answer token."""
    return train(
        model, lambda: answer_loss(model, source.batch()), source.phase.schedule, label=source.phase.label
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="Hugging Face folder to write")
    parser.add_argument("--seed", type=int, default=0, help="of the initialisation and the demonstrations")
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    model, tokenizer = make_seed(seed=arguments.seed)
    save(model, tokenizer, arguments.out)
    show(measure(arguments.out))


if __name__ == "__main__":
    main()
