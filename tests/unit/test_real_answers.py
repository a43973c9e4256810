"""The rewards on real public data; skipped where it is not at hand."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import pytest

from rlstack.credit.pairs import form_pair
from rlstack.data.records import Prompt, Rollout, RolloutGroup, Score, ScoredGroup
from rlstack.rewards.math import MathVerifier


def rows_of(name: str) -> list[dict[str, Any]]:
    default = Path(__file__).resolve().parents[3] / "shared" / "data"
    path = Path(os.environ.get("RLSTACK_SHARED_DATA", default)) / name
    if not path.exists():
        pytest.skip(f"{name} is not here; set RLSTACK_SHARED_DATA to its folder")
    return [json.loads(line) for line in path.read_bytes().split(b"\n") if line]


@pytest.mark.parametrize("name", ["math500.jsonl", "amc23.jsonl", "gsm8k_test.jsonl"])
def test_gold_answers_in_the_papers_form_verify_against_themselves(name: str) -> None:
    golds = [str(row["answer"]) for row in rows_of(name)]
    items = [(f"The final answer is $\\boxed{{{gold}}}$. I hope it is correct.", gold) for gold in golds]
    with MathVerifier(workers=2, timeout_s=20.0) as verifier:
        scores = verifier.score(items)
    missed = [gold for gold, score in zip(golds, scores, strict=True) if score.reward != 1.0]
    assert len(missed) <= 0.005 * len(golds), missed


def test_reward_model_scores_give_best_against_worst_pairs() -> None:
    """Of 60 problems with 8 answers each and the scores of a real reward model."""
    rows = rows_of("math_rollouts_60x8.jsonl")
    for number, row in enumerate(rows):
        given = row["reward_model_scores"]
        rollouts = tuple(
            Rollout(token_ids=(i,), generator_logprobs=(0.0,), text=text, finished=True, version=0)
            for i, text in enumerate(row["responses"])
        )
        prompt = Prompt(task="math", row=number, problem=row["problem"], token_ids=(0,))
        scored = ScoredGroup(
            group=RolloutGroup(step=0, prompt=prompt, rollouts=rollouts),
            scores=tuple(Score(reward=score) for score in given),
        )
        pair = form_pair(scored, random.Random(number))
        assert (pair is None) == (min(given) == max(given))
        if pair is not None:
            chosen, rejected = (given[r.token_ids[0]] for r in (pair.rollouts[0], pair.rollouts[1]))
            assert (chosen, rejected) == (max(given), min(given))
    assert len(rows) == 60
