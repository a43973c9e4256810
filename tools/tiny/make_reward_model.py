"""Trains the note task's reward model: a Llama with one output, read at the last token (the end token).

Bradley-Terry loss on pairs of notes from the demonstration grammar. The label of a pair is DRAWN from the
hidden utility's odds, and training stops early: an imperfect judge on purpose, one that can be
over-optimised.
"""

from __future__ import annotations

import argparse
import math
import random
from pathlib import Path
from typing import NamedTuple

import note_task
import torch
from tiny_tokenizer import answer_ids, build_tokenizer, prompt_ids
from torch import Tensor
from training import Schedule, pad, save, train
from transformers import LlamaForSequenceClassification, PreTrainedTokenizerFast

LABEL_SHARPNESS = 2.0  # log-odds of a label per unit of utility
CENTRING = 0.001  # weight of the mean score's square: Bradley-Terry alone leaves the level free
SCHEDULE = Schedule(lr=1e-3, num_steps=240, horizon_steps=240, warmup_steps=30)
PAIRS_PER_STEP = 24
HELD_OUT_PAIRS = 1000


class Comparison(NamedTuple):
    """Two notes to one prompt; the label says that the first is preferred."""

    preferred: list[int]  # prompt and note, token ids
    other: list[int]
    preferred_utility: float
    other_utility: float


def comparison(
    rng: random.Random, tokenizer: PreTrainedTokenizerFast, prompts: list[note_task.NotePrompt]
) -> Comparison:
    """A pair of demonstrations with a label from a Bernoulli draw."""
    prompt = rng.choice(prompts)
    ids = prompt_ids(tokenizer, prompt.problem)
    notes = [note_task.demonstration(rng, prompt) for _ in range(2)]
    first, second = ((ids + answer_ids(tokenizer, note), note_task.utility(prompt, note)) for note in notes)
    log_odds = LABEL_SHARPNESS * (first[1] - second[1])
    if rng.random() >= 1 / (1 + math.exp(-log_odds)):
        first, second = second, first
    return Comparison(first[0], second[0], first[1], second[1])


def scores(model: LlamaForSequenceClassification, comparisons: list[Comparison]) -> tuple[Tensor, Tensor]:
    """Scores of the preferred and of the other notes, [N] each."""
    assert model.config.pad_token_id is not None
    sequences = [item.preferred for item in comparisons] + [item.other for item in comparisons]
    logits = model(input_ids=pad(sequences, value=model.config.pad_token_id)).logits.squeeze(-1)
    preferred, other = logits.chunk(2)
    return preferred, other


def bradley_terry_loss(preferred: Tensor, other: Tensor) -> Tensor:
    """-log sigmoid(preferred - other), mean over pairs, with a weak pull of the level to 0."""
    level = torch.cat([preferred, other]).mean()
    return -torch.nn.functional.logsigmoid(preferred - other).mean() + CENTRING * level**2


@torch.no_grad()
def measure(model: LlamaForSequenceClassification, comparisons: list[Comparison]) -> dict[str, float]:
    """Agreement with the drawn labels, the best agreement possible, and correlation with the utility."""
    preferred, other = scores(model, comparisons)
    utilities = torch.tensor([[item.preferred_utility, item.other_utility] for item in comparisons])
    # Ties in utility are coin tosses: half of them are right whatever the judge says.
    best = (utilities[:, 0] > utilities[:, 1]).float() + 0.5 * (utilities[:, 0] == utilities[:, 1])
    joined = torch.stack([torch.cat([preferred, other]), utilities.T.flatten()])
    return {
        "label_accuracy": (preferred > other).float().mean().item(),
        "label_accuracy_of_utility": best.mean().item(),
        "correlation_with_utility": torch.corrcoef(joined)[0, 1].item(),
        "score_std": joined[0].std().item(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--policy", type=Path, required=True, help="seed policy whose body it starts from")
    parser.add_argument("--out", type=Path, required=True, help="Hugging Face folder to write")
    parser.add_argument("--seed", type=int, default=0, help="of the head and the comparisons")
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    torch.manual_seed(arguments.seed)
    rng = random.Random(arguments.seed)
    tokenizer = build_tokenizer()
    model = LlamaForSequenceClassification.from_pretrained(
        arguments.policy, num_labels=1, dtype=torch.float32
    )
    prompts = note_task.all_prompts(held_out=False)

    def step_loss() -> Tensor:
        return bradley_terry_loss(
            *scores(model, [comparison(rng, tokenizer, prompts) for _ in range(PAIRS_PER_STEP)])
        )

    train(model, step_loss, SCHEDULE, label="reward model", report_every=40)
    save(model, tokenizer, arguments.out)

    saved = LlamaForSequenceClassification.from_pretrained(arguments.out, dtype=torch.float32)
    held_out = note_task.all_prompts(held_out=True)
    comparisons = [comparison(rng, tokenizer, held_out) for _ in range(HELD_OUT_PAIRS)]
    for name, value in measure(saved.eval(), comparisons).items():
        print(f"{name:28} {value:.3f}")


if __name__ == "__main__":
    main()
