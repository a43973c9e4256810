from __future__ import annotations

import dataclasses
import json
import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlstack.checkpoint.run_state import ROLLOUTS, RUN_STATE, RunState, read_rollouts, write_rollouts
from rlstack.data.records import Prompt, Rollout, RolloutGroup
from rlstack.errors import CheckpointError

STATE = RunState(
    step=7,
    served_version=4,
    reference_version=0,
    positions={"metrics.jsonl": 1234},
    recorder={"elapsed_s": 1.1},
)
TEXT = st.text(max_size=20)
TOKENS = st.tuples(st.integers(0, 10**6), st.floats(max_value=0, allow_nan=False, width=32))
ROLLOUT = st.builds(
    lambda tokens, **others: Rollout(
        token_ids=[token for token, _ in tokens],
        generator_logprobs=[logprob for _, logprob in tokens],
        **others,
    ),
    st.lists(TOKENS, max_size=4),
    text=TEXT,
    finished=st.booleans(),
    version=st.integers(0, 100),
)
GROUP = st.builds(
    RolloutGroup,
    step=st.integers(0, 100),
    prompt=st.builds(
        Prompt,
        task=TEXT,
        row=st.integers(0, 10**6),
        problem=TEXT,
        token_ids=st.lists(st.integers(0, 10**6), max_size=4).map(tuple),
        answer=st.none() | TEXT,
    ),
    rollouts=st.lists(ROLLOUT, max_size=3).map(tuple),
)


def test_the_state_comes_back(tmp_path) -> None:
    STATE.write(tmp_path)
    assert RunState.read(tmp_path) == STATE


@pytest.mark.parametrize(
    "change", [{"step": "7"}, {"step": True}, {"positions": []}, {"stranger": 1}, {"recorder": None}]
)
def test_a_state_of_another_form_is_refused(tmp_path, change) -> None:
    record = dataclasses.asdict(STATE) | change
    (tmp_path / RUN_STATE).write_text(json.dumps(record))
    with pytest.raises(CheckpointError, match=r"run\.json"):
        RunState.read(tmp_path)


def test_a_missing_state_is_refused(tmp_path) -> None:
    with pytest.raises(CheckpointError, match=r"run\.json: is missing"):
        RunState.read(tmp_path)


@given(
    st.dictionaries(st.integers(0, 99), st.dictionaries(st.integers(0, 99), GROUP, min_size=1), max_size=3)
)
def test_rollouts_come_back_to_the_bit(tmp_path_factory, rollouts) -> None:
    folder = tmp_path_factory.mktemp("checkpoint")
    write_rollouts(folder, rollouts)
    assert read_rollouts(folder) == rollouts


def test_the_smallest_and_infinite_logprobs_come_back(tmp_path) -> None:
    logprobs = np.array([-1e-45, -0.1, -math.inf, np.finfo(np.float32).min], np.float32)
    rollout = Rollout(
        token_ids=(1,) * 4, generator_logprobs=logprobs, text="\ud83d", finished=True, version=1
    )
    prompt = Prompt(task="t", row=0, problem="p", token_ids=(1,))
    write_rollouts(tmp_path, {3: {0: RolloutGroup(step=3, prompt=prompt, rollouts=(rollout,))}})
    (found,) = read_rollouts(tmp_path)[3][0].rollouts
    assert found == rollout


@pytest.mark.parametrize("content", [b"", b"nonsense", b"ARROW1\0\0" * 9])
def test_a_file_of_rollouts_that_is_none_is_refused(tmp_path, content) -> None:
    (tmp_path / ROLLOUTS).write_bytes(content)
    with pytest.raises(CheckpointError, match=r"rollouts\.arrow: holds no groups of rollouts"):
        read_rollouts(tmp_path)


def test_the_file_of_rollouts_is_missing_in_a_checkpoint_of_an_earlier_form(tmp_path) -> None:
    with pytest.raises(CheckpointError, match=r"rollouts\.arrow: is missing"):
        read_rollouts(tmp_path)


def test_a_sampled_token_takes_ten_bytes_and_no_python_object(tmp_path) -> None:
    """Of text like English; what an answer takes besides is small where answers are long."""
    numbers = random.Random(0)
    words = [" the", " sum", " of", " three", " and", " seven", " is", " ten", " so", " x", " =", " 10"]
    rollouts = tuple(
        Rollout(
            token_ids=[numbers.randrange(120_000) for _ in range(4096)],
            generator_logprobs=[-numbers.random() for _ in range(4096)],
            text="".join(numbers.choice(words) for _ in range(4096)),
            finished=True,
            version=1,
        )
        for _ in range(4)
    )
    prompt = Prompt(task="t", row=0, problem="p", token_ids=(1,))
    digest = write_rollouts(tmp_path, {3: {0: RolloutGroup(step=3, prompt=prompt, rollouts=rollouts)}})
    assert digest.num_bytes == (tmp_path / ROLLOUTS).stat().st_size
    assert digest.num_bytes / (4 * 4096) < 11
