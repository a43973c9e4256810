from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import pytest

from rlstack.rollout.sampling import prompt_seed, to_rollout


def test_prompt_seeds_are_far_apart_and_repeatable():
    places = [
        (run, stream, step, i)
        for run, stream, step, i in itertools.product([0, 1], ["train", "evaluate"], [0, 1], range(50))
    ]
    seeds = [prompt_seed(run, stream=stream, step=step, position=i) for run, stream, step, i in places]
    assert seeds == [prompt_seed(r, stream=s, step=t, position=i) for r, s, t, i in places]
    assert all(0 <= seed < 2**62 for seed in seeds)
    ordered = sorted(seeds)
    assert min(b - a for a, b in itertools.pairwise(ordered)) > 10_000  # rollout k has seed + k


@pytest.mark.parametrize(("finish_reason", "text"), [("stop", "5 6"), ("length", "5 6 7")])
def test_the_end_token_is_in_the_tokens_and_not_in_the_text(finish_reason, text):
    completion = SimpleNamespace(
        token_ids=[5, 6, 7],
        logprobs=[{token: SimpleNamespace(logprob=-token / 10)} for token in (5, 6, 7)],
        finish_reason=finish_reason,
    )
    rollout = to_rollout(completion, version=3, decode=lambda token_ids: " ".join(map(str, token_ids)))
    assert (rollout.token_ids.dtype, rollout.token_ids.tolist()) == (np.int32, [5, 6, 7])
    assert rollout.generator_logprobs.dtype == np.float32
    assert rollout.generator_logprobs.tolist() == np.array([-0.5, -0.6, -0.7], np.float32).tolist()
    assert (rollout.text, rollout.finished, rollout.version) == (text, finish_reason == "stop", 3)
