"""Trains the tiny task's seed policy: the model that reinforcement learning starts from.

Phase 1 teaches the skill from demonstrations without errors and stops early. Phase 2 makes an instruct model
that is sloppy ON PURPOSE: mostly bare answers, and worked ones with wrong steps. What reinforcement learning
then has to find is the worked style and the care that the model is able to take.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable
from pathlib import Path

import fraction_sums
import note_task
import torch
from measure import measure, show
from tiny_tokenizer import answer_ids, build_tokenizer, prompt_ids
from training import Example, Schedule, answer_loss, new_model, save, train
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

SKILL = Schedule(lr=2e-3, num_steps=1200, horizon_steps=1800)
SLOPPY = Schedule(lr=5e-4, num_steps=400, horizon_steps=600)


def skill_demonstrations(tokenizer: PreTrainedTokenizerFast, rng: random.Random) -> Callable[[], Example]:
    """Fractions only: 35 % direct, 65 % worked, no errors, a quarter of the reducible answers reduced."""
    problems = fraction_sums.all_problems(held_out=False)

    def draw() -> Example:
        problem = rng.choice(problems)
        text = fraction_sums.demonstration(rng, problem, direct=0.35, slip=0.0, reduce=0.25)
        return prompt_ids(tokenizer, problem.prompt), answer_ids(tokenizer, text)

    return draw


def sloppy_demonstrations(
    tokenizer: PreTrainedTokenizerFast, rng: random.Random, *, notes: float
) -> Callable[[], Example]:
    """Notes with this probability; else fractions, 55 % direct, one arithmetic step in ten wrong."""
    problems = fraction_sums.all_problems(held_out=False)
    prompts = note_task.all_prompts(held_out=False)

    def draw() -> Example:
        if rng.random() < notes:
            prompt = rng.choice(prompts)
            note = note_task.demonstration(rng, prompt)
            return prompt_ids(tokenizer, prompt.problem), answer_ids(tokenizer, note)
        problem = rng.choice(problems)
        text = fraction_sums.demonstration(rng, problem, direct=0.55, slip=0.1, reduce=0.25)
        return prompt_ids(tokenizer, problem.prompt), answer_ids(tokenizer, text)

    return draw


def make_seed(*, seed: int, notes: float) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """Both phases on one thread, so that the result depends on `seed` and the library versions only."""
    torch.manual_seed(seed)
    rng = random.Random(seed)
    tokenizer = build_tokenizer()
    model = new_model(tokenizer)
    phases = [
        ("skill", SKILL, 32, skill_demonstrations(tokenizer, rng)),
        ("sloppy", SLOPPY, 24, sloppy_demonstrations(tokenizer, rng, notes=notes)),
    ]
    for label, schedule, batch_size, draw in phases:

        def step_loss(draw: Callable[[], Example] = draw, batch_size: int = batch_size) -> torch.Tensor:
            return answer_loss(model, [draw() for _ in range(batch_size)])

        train(model, step_loss, schedule, label=label)
    return model, tokenizer


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="Hugging Face folder to write")
    parser.add_argument("--seed", type=int, default=0, help="of the initialisation and the demonstrations")
    parser.add_argument("--notes", type=float, default=0.5, help="share of notes in the second phase")
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    model, tokenizer = make_seed(seed=arguments.seed, notes=arguments.notes)
    save(model, tokenizer, arguments.out)
    show(measure(arguments.out))


if __name__ == "__main__":
    main()
