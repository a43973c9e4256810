"""Measures a tiny policy: accuracy and spread on fraction sums, taste and form of its notes.

Works on any Hugging Face folder of the tiny shape: the seed, or the model that a run has left.
"""

from __future__ import annotations

import argparse
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import fraction_sums
import note_task
import torch
from tiny_tokenizer import ANSWER_PREFIX, answer_text, load_tokenizer, prompt_ids
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from rlstack.rewards.math import MathVerifier

ROLLOUTS = 8  # per prompt, as in a run
MAX_NEW_TOKENS = 56
VERIFIER_TIMEOUT_S = 10.0

Figures = dict[str, Any]


@torch.no_grad()
def sample(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    prompts: Sequence[str],
    *,
    n: int,
    temperature: float,
    top_p: float,
) -> list[list[list[int]]]:
    """n answers per prompt as token ids, the end token included. Prompts must be equally long in tokens."""
    token_ids = torch.tensor([prompt_ids(tokenizer, prompt) for prompt in prompts])
    generate = cast(Any, model).generate  # its stub refuses Llama as self
    output = generate(
        token_ids,
        attention_mask=torch.ones_like(token_ids),
        do_sample=True,
        temperature=temperature,
        top_p=top_p,
        top_k=0,
        num_return_sequences=n,
        max_new_tokens=MAX_NEW_TOKENS,
    )
    answers = [trimmed(row, end=tokenizer.eos_token_id) for row in output[:, token_ids.shape[1] :].tolist()]
    return [answers[first : first + n] for first in range(0, len(answers), n)]


def trimmed(token_ids: list[int], *, end: int) -> list[int]:
    """Everything up to the first end token, which stays."""
    return token_ids[: token_ids.index(end) + 1] if end in token_ids else token_ids


def measure_fractions(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    problems: Sequence[fraction_sums.FractionSum],
    *,
    n: int,
    temperature: float,
    top_p: float,
) -> Figures:
    """Accuracy, share of prompts that give a pair, mean length, and the two styles' shares and accuracies."""
    prompts = [problem.prompt for problem in problems]
    groups = sample(model, tokenizer, prompts, n=n, temperature=temperature, top_p=top_p)
    num_correct, lengths = [], []
    styles: dict[str, list[bool]] = {"direct": [], "worked": []}
    with MathVerifier(workers=1, timeout_s=VERIFIER_TIMEOUT_S) as verifier:
        for problem, group in zip(problems, groups, strict=True):
            texts = [answer_text(tokenizer, answer) for answer in group]
            scores = verifier.score([(text, problem.answer) for text in texts])
            correct = [score.reward == 1.0 for score in scores]
            num_correct.append(sum(correct))
            lengths += [len(answer) for answer in group]
            for text, right in zip(texts, correct, strict=True):
                styles["direct" if text.startswith(ANSWER_PREFIX) else "worked"].append(right)
    histogram = Counter(num_correct)
    return {
        "accuracy": sum(num_correct) / len(lengths),
        "pair_share": sum(0 < right < n for right in num_correct) / len(problems),
        "mean_length_tokens": sum(lengths) / len(lengths),
        "direct_share": len(styles["direct"]) / len(lengths),
        **{f"{style}_accuracy": sum(right) / max(1, len(right)) for style, right in styles.items()},
        "prompts_by_num_correct": [histogram[right] for right in range(n + 1)],
    }


def measure_notes(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, *, temperature: float, top_p: float
) -> Figures:
    """Mean hidden utility and length of notes, and the share that name the right person and topic."""
    prompts = note_task.all_prompts(held_out=True)
    groups = sample(
        model,
        tokenizer,
        [prompt.problem for prompt in prompts],
        n=ROLLOUTS,
        temperature=temperature,
        top_p=top_p,
    )
    notes = [
        (prompt, answer_text(tokenizer, answer), len(answer))
        for prompt, group in zip(prompts, groups, strict=True)
        for answer in group
    ]
    return {
        "utility": sum(note_task.utility(prompt, note) for prompt, note, _ in notes) / len(notes),
        "names_right_person": sum(prompt.name in note for prompt, note, _ in notes) / len(notes),
        "names_right_topic": sum(prompt.topic in note for prompt, note, _ in notes) / len(notes),
        "mean_length_tokens": sum(length for _, _, length in notes) / len(notes),
        "examples": [note for _, note, _ in notes[:: len(notes) // 5]],
    }


def measure(folder: Path, *, num_problems: int = 200, seed: int = 0) -> dict[str, Figures]:
    """Both tasks on held-out prompts, at the temperatures of a run's rollouts and of its evaluation."""
    torch.manual_seed(seed)
    tokenizer = load_tokenizer(folder)
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    problems = random.Random(seed).sample(fraction_sums.all_problems(held_out=True), num_problems)
    return {
        "fractions T=1.0": measure_fractions(
            model, tokenizer, problems, n=ROLLOUTS, temperature=1.0, top_p=1.0
        ),
        "fractions T=0.6 top-p 0.9": measure_fractions(
            model, tokenizer, problems, n=4, temperature=0.6, top_p=0.9
        ),
        "notes T=1.0": measure_notes(model, tokenizer, temperature=1.0, top_p=1.0),
        "notes T=0.6 top-p 0.9": measure_notes(model, tokenizer, temperature=0.6, top_p=0.9),
    }


def show(measurements: dict[str, Figures]) -> None:
    for title, values in measurements.items():
        print(title)
        for name, value in values.items():
            print(f"  {name:24} {value:.3f}" if isinstance(value, float) else f"  {name:24} {value}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True, help="Hugging Face folder of a tiny policy")
    parser.add_argument("--num-problems", type=int, default=200, help="held-out fraction sums to sample")
    parser.add_argument("--seed", type=int, default=0, help="of the problems and the sampling")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    show(measure(arguments.model, num_problems=arguments.num_problems, seed=arguments.seed))


if __name__ == "__main__":
    main()
