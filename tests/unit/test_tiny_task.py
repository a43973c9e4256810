"""The tiny task: its tokenizer, its two datasets, its shipped files and the way its seed is trained."""

from __future__ import annotations

import json
import math
import random
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import (
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
)

sys.path.insert(0, str(Path(__file__).parents[2] / "tools" / "tiny"))

import fraction_sums
import make_data
import make_reward_model
import make_seed
import measure
import note_task
import tiny_tokenizer
import training

from rlstack.rewards.math import MathVerifier

SHIPPED = Path(__file__).parents[2] / "configs" / "tiny"
MIB = 1024**2
PRINTABLE = st.text(st.sampled_from([chr(code) for code in range(32, 127)] + ["\n"]))


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return tiny_tokenizer.load_tokenizer(SHIPPED / "seed")


def round_trip(tokenizer: PreTrainedTokenizerFast, text: str) -> str:
    ids = tokenizer.encode(text, add_special_tokens=False)
    return cast(str, tokenizer.decode(ids))


def test_shipped_tokenizers_are_what_the_script_builds(tokenizer: PreTrainedTokenizerFast) -> None:
    built = tiny_tokenizer.build_tokenizer()
    for shipped in (tokenizer, tiny_tokenizer.load_tokenizer(SHIPPED / "reward_model")):
        assert shipped.get_vocab() == built.get_vocab()
        assert shipped.chat_template == built.chat_template
        assert shipped.backend_tokenizer.to_str() == built.backend_tokenizer.to_str()


@given(text=PRINTABLE)
def test_any_printable_text_survives_a_round_trip(tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    assert round_trip(tokenizer, text) == text


@given(
    words=st.lists(st.sampled_from([*tiny_tokenizer.WORDS, "The final answer is $\\boxed{", ".", " ", "s"]))
)
def test_any_mix_of_words_and_phrases_survives_a_round_trip(
    tokenizer: PreTrainedTokenizerFast, words: list[str]
) -> None:
    assert round_trip(tokenizer, "".join(words)) == "".join(words)
    assert round_trip(tokenizer, " ".join(words)) == " ".join(words)


def test_prompts_of_both_tasks_are_19_tokens(tokenizer: PreTrainedTokenizerFast) -> None:
    for held_out in (False, True):
        texts = [item.prompt for item in fraction_sums.all_problems(held_out=held_out)]
        texts += [item.problem for item in note_task.all_prompts(held_out=held_out)]
        assert {len(tiny_tokenizer.prompt_ids(tokenizer, text)) for text in texts} == {19}


def test_chat_format_is_that_of_llama_3(tokenizer: PreTrainedTokenizerFast) -> None:
    assert tokenizer.decode(tiny_tokenizer.prompt_ids(tokenizer, " Hello\n")) == (
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHello<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )


def test_characters_outside_the_vocabulary_become_unknown(tokenizer: PreTrainedTokenizerFast) -> None:
    assert tokenizer.encode("é", add_special_tokens=False) == [tokenizer.unk_token_id]


@pytest.mark.parametrize(
    ("problem", "answer"),
    [
        (fraction_sums.FractionSum(3, 4, "+", 1, 6), "11/12"),
        (fraction_sums.FractionSum(1, 2, "-", 1, 2), "0"),
        (fraction_sums.FractionSum(7, 2, "+", 1, 2), "4"),
        (fraction_sums.FractionSum(1, 7, "-", 7, 2), "-47/14"),
    ],
)
def test_gold_answers_are_reduced(problem: fraction_sums.FractionSum, answer: str) -> None:
    assert problem.answer == answer


@pytest.fixture(scope="module")
def verifier() -> Iterator[MathVerifier]:
    with MathVerifier(workers=1, timeout_s=10.0) as verifier:
        yield verifier


@pytest.mark.parametrize(("slip", "lowest", "highest"), [(0.0, 1.0, 1.0), (0.5, 0.0, 0.5)])
def test_demonstrations_are_wrong_only_by_slips(
    verifier: MathVerifier, slip: float, lowest: float, highest: float
) -> None:
    rng = random.Random(0)
    problems = rng.sample(fraction_sums.all_problems(held_out=True), 50)
    texts = [fraction_sums.demonstration(rng, item, direct=0.5, slip=slip, reduce=0.5) for item in problems]
    scores = verifier.score([(text, item.answer) for text, item in zip(texts, problems, strict=True)])
    assert lowest <= sum(score.reward or 0.0 for score in scores) / len(scores) <= highest


def test_utility_prefers_the_right_name_and_topic() -> None:
    prompt = note_task.NotePrompt("Ann", "book")
    right = note_task.utility(prompt, "Dear Ann, thank you for the book.")
    assert right > note_task.utility(prompt, "Dear Bob, thank you for the book.")
    assert right > note_task.utility(prompt, "Dear Ann, thank you for the cake.")
    assert right > note_task.utility(prompt, "Dear Ann, I hated it.")


def test_splits_are_disjoint_and_complete() -> None:
    rows = make_data.rows(seed=0)
    for name, total in (("fractions", 3528), ("notes", 256)):
        train, held_out = (
            {row["problem"] for row in rows[f"{name}/{split}.jsonl"]} for split in ("train", "heldout")
        )
        assert not train & held_out
        assert len(train | held_out) == total


def test_shipped_data_is_what_the_script_writes() -> None:
    for name, rows in make_data.rows(seed=0).items():
        lines = (SHIPPED / name).read_text(encoding="utf-8").splitlines()
        assert [json.loads(line) for line in lines] == rows


def test_shipped_models_load_and_fit_the_tokenizer(tokenizer: PreTrainedTokenizerFast) -> None:
    policy = LlamaForCausalLM.from_pretrained(SHIPPED / "seed")
    judge = LlamaForSequenceClassification.from_pretrained(SHIPPED / "reward_model")
    for model in (policy, judge):
        assert model.dtype == torch.bfloat16
        assert model.config.vocab_size == len(tokenizer)
        assert model.config.eos_token_id == tokenizer.convert_tokens_to_ids("<|eot_id|>")
    assert judge.config.num_labels == 1


def test_shipped_files_are_small() -> None:
    sizes = {path: path.stat().st_size for path in SHIPPED.rglob("*") if path.is_file()}
    assert sum(sizes.values()) < 4 * MIB
    for folder in ("seed", "reward_model"):
        assert sum(size for path, size in sizes.items() if folder in path.parts) < 1.5 * MIB


def test_shipped_seed_answers_some_problems_and_misses_more(tokenizer: PreTrainedTokenizerFast) -> None:
    torch.manual_seed(0)
    model = LlamaForCausalLM.from_pretrained(SHIPPED / "seed", dtype=torch.float32)
    problems = fraction_sums.all_problems(held_out=True)[:60]
    figures = measure.measure_fractions(model, tokenizer, problems, n=4, temperature=1.0, top_p=1.0)
    assert 0.1 < figures["accuracy"] < 0.45


def test_shipped_reward_model_prefers_the_kinder_note() -> None:
    model = LlamaForSequenceClassification.from_pretrained(SHIPPED / "reward_model", dtype=torch.float32)
    tokenizer = tiny_tokenizer.load_tokenizer(SHIPPED / "reward_model")
    rng, prompts = random.Random(1), note_task.all_prompts(held_out=True)
    comparisons = [make_reward_model.comparison(rng, tokenizer, prompts) for _ in range(200)]
    figures = make_reward_model.measure(model, comparisons)
    assert figures["label_accuracy"] > 0.6
    assert figures["correlation_with_utility"] > 0.4


def test_fifty_steps_of_seed_training_lower_the_loss(tokenizer: PreTrainedTokenizerFast) -> None:
    torch.manual_seed(0)
    model = training.new_model(tokenizer)
    schedule = training.Schedule(lr=2e-3, num_steps=50, horizon_steps=2400)
    phase = replace(make_seed.SKILL, batch_size=8, schedule=schedule)
    losses = make_seed.run_phase(model, make_seed.Demonstrations(tokenizer, random.Random(0), phase))
    assert sum(losses[-5:]) < 0.6 * sum(losses[:5])
    assert all(math.isfinite(loss) for loss in losses)
