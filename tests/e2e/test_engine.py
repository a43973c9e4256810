from __future__ import annotations

import itertools

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlstack.config.schema import RunConfig
from rlstack.data.records import Prompt
from rlstack.rollout.engine import Engine
from rlstack.rollout.sampling import prompt_seed

pytestmark = pytest.mark.slow

N = 8
MAX_NEW_TOKENS = 40
PROMPTS = [
    Prompt(task="t", row=i, problem="", token_ids=tuple(range(3 + i, 3 + i + length)))
    for i, length in enumerate([5, 9, 1, 17])
]
SEEDS = [prompt_seed(0, stream="train", step=0, position=i) for i in range(len(PROMPTS))]


def sample(folder: str) -> dict:
    config = RunConfig()
    config.policy.model = folder
    config.rollout.max_new_tokens = MAX_NEW_TOKENS
    config.rollout.kv_cache_gib = 0.1
    engine = Engine(config, index=0)
    engine.warm_up()
    settings = {"n": N, "temperature": 0.7, "top_p": 0.9}
    groups = {
        "all": engine.generate(PROMPTS, seeds=SEEDS, **settings),
        "again": engine.generate(PROMPTS, seeds=SEEDS, **settings),
        "alone": engine.generate(PROMPTS[1:2], seeds=SEEDS[1:2], **settings),
        "other_seeds": engine.generate(PROMPTS, seeds=[s + 1000 for s in SEEDS], **settings),
    }
    engine.close()
    return groups


@pytest.fixture(scope="module")
def folder(small_llama):
    return small_llama(0, tied=False)


@pytest.fixture(scope="module")
def groups(folder, own_process):
    return own_process.submit(sample, str(folder)).result()


def tokens(groups) -> list:
    return [[rollout.token_ids.tolist() for rollout in group] for group in groups]


@torch.no_grad()
def test_logprobs_are_the_models_own_before_temperature_and_top_p(folder, groups):
    model = AutoModelForCausalLM.from_pretrained(folder)
    for prompt, group in zip(PROMPTS, groups["all"], strict=True):
        for rollout in group:
            ids = torch.tensor([[*prompt.token_ids.tolist(), *rollout.token_ids.tolist()]])
            logprobs = model(ids).logits[0, len(prompt.token_ids) - 1 : -1].log_softmax(-1)
            expected = logprobs.gather(1, torch.tensor(rollout.token_ids.tolist())[:, None])[:, 0]
            torch.testing.assert_close(torch.tensor(rollout.generator_logprobs), expected, atol=1e-4, rtol=0)


def test_seeds_decide_the_rollouts_whatever_else_is_in_the_batch(groups):
    assert tokens(groups["again"]) == tokens(groups["all"])
    assert groups["alone"] == groups["all"][1:2]  # their logprobs too, to the bit
    assert all(a != b for a, b in zip(tokens(groups["other_seeds"]), tokens(groups["all"]), strict=True))


def test_the_rollouts_of_a_prompt_differ_whatever_the_folders_generation_config_says(groups):
    assert all(len({*map(tuple, group)}) == N for group in tokens(groups["all"]))


def test_an_end_token_is_kept_in_the_tokens_and_left_out_of_the_text(folder, groups):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rollouts = list(itertools.chain(*groups["all"]))
    for rollout in rollouts:
        token_ids = rollout.token_ids.tolist()
        body = token_ids[:-1] if rollout.finished else token_ids
        assert not {1, 2} & set(body)
        assert rollout.text == tokenizer.decode(body, skip_special_tokens=True)
        assert rollout.finished == (rollout.token_ids[-1] in (1, 2))
        assert rollout.finished or len(rollout.token_ids) == MAX_NEW_TOKENS
    assert {r.finished for r in rollouts} == {True, False}


def test_rollouts_carry_the_version_of_the_weights(groups):
    assert {r.version for r in itertools.chain(*groups["all"])} == {0}
