"""Continuous batching, held against a token-by-token account of the same engine."""

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlstack.tuning.batching import finish_times, lengths_of
from rlstack.tuning.parts import Generation, Workload

GENERATION = Generation(decode_s=0.5, decode_s_per_sequence=0.25, prefill_s_per_token=0.125, call_s=3.0)


def token_by_token(lengths, *, prompt_tokens, max_num_seqs):
    waiting, running, done, now = list(enumerate(lengths)), {}, {}, GENERATION.call_s
    while waiting or running:
        while waiting and len(running) < max_num_seqs:
            index, length = waiting.pop(0)
            running[index] = length
            now += prompt_tokens * GENERATION.prefill_s_per_token
        now += GENERATION.decode_s + len(running) * GENERATION.decode_s_per_sequence
        running = {index: left - 1 for index, left in running.items()}
        done |= {index: now for index, left in running.items() if not left}
        running = {index: left for index, left in running.items() if left}
    return [done[index] for index in range(len(lengths))]


@given(st.lists(st.integers(1, 12), min_size=1, max_size=30), st.integers(1, 8))
def test_rollouts_finish_when_the_engine_has_decoded_them(lengths, max_num_seqs):
    found = finish_times(GENERATION, tuple(lengths), prompt_tokens=2, max_num_seqs=max_num_seqs)
    assert list(found) == pytest.approx(token_by_token(lengths, prompt_tokens=2, max_num_seqs=max_num_seqs))


@given(st.lists(st.integers(1, 500), min_size=1, max_size=50), st.integers(1, 4))
def test_drawn_lengths_have_the_distribution_of_the_workload(answer_tokens, scale):
    workload = Workload(prompt_tokens=1, answer_tokens=tuple(answer_tokens), trained_tokens_per_prompt=1)
    drawn = lengths_of(workload, 200 * scale)
    assert set(drawn) <= set(answer_tokens)
    spread = max(answer_tokens) - min(answer_tokens)
    assert statistics.fmean(drawn) == pytest.approx(workload.mean_answer_tokens, abs=0.03 * spread + 1e-9)
