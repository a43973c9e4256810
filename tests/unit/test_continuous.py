"""Requests through an engine that answers in its own order; errands in between."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlstack.rollout import continuous
from rlstack.rollout.continuous import BATCHES_QUEUED, run_continuously
from rlstack.rollout.turns import Turns


class Llm:
    """Stands for a vllm.LLM and its llm_engine: a request ends after as many steps as its prompt says."""

    def __init__(self, first_id: int = 7) -> None:
        self.llm_engine = self
        self._next_id = first_id  # it has served others before
        self._left: dict[int, int] = {}
        self.most = 0

    def enqueue(self, prompts: list[int], parameters: list[str], *, use_tqdm: bool) -> list[str]:
        assert parameters == ["parameters"] and not use_tqdm
        names = []
        for prompt in prompts:
            self._left[self._next_id] = prompt
            names.append(f"{self._next_id}-1f2e")
            self._next_id += 1
        self.most = max(self.most, len(self._left))
        return names

    def get_num_unfinished_requests(self) -> int:
        return len(self._left)

    def has_unfinished_requests(self) -> bool:
        return bool(self._left)

    def step(self) -> list[Any]:
        self._left = {name: left - 1 for name, left in self._left.items()}
        outputs = [
            SimpleNamespace(request_id=str(name), finished=left == 0) for name, left in self._left.items()
        ]
        self._left = {name: left for name, left in self._left.items() if left}
        return outputs[::-1]


@given(lengths=st.lists(st.integers(1, 5), max_size=20), max_num_seqs=st.integers(1, 4))
def test_every_request_is_answered_once_in_its_place(lengths: list[int], max_num_seqs: int) -> None:
    llm = Llm()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(continuous, "YIELD_EVERY_S", 0.0)
        yields = list(run_continuously(llm, [(n, "parameters") for n in lengths], max_num_seqs=max_num_seqs))
    answers = [answer for some in yields for answer in some]
    assert {place: int(output.request_id) - 7 for place, output in answers} == dict(
        zip(range(len(lengths)), range(len(lengths)), strict=True)
    )
    assert all(some for some in yields)
    assert llm.most <= BATCHES_QUEUED * max_num_seqs


def test_what_ends_soon_after_the_last_is_handed_on_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(continuous, "YIELD_EVERY_S", 3600.0)
    requests = [(n, "parameters") for n in (3, 1, 2)]
    assert [[place for place, _ in some] for some in run_continuously(Llm(), requests, max_num_seqs=8)] == [
        [0, 1, 2]
    ]


def test_an_errand_is_done_by_the_one_at_work_between_two_steps() -> None:
    turns, begun, done_in = Turns(), threading.Event(), list[threading.Thread]()

    def work() -> None:
        with turns.at_work():
            begun.set()
            while not done_in:
                turns.give_way()

    worker = threading.Thread(target=work)
    worker.start()
    begun.wait(10)
    turns.do(lambda: done_in.append(threading.current_thread()))
    worker.join(10)
    assert done_in == [worker]


def test_an_errand_is_done_when_nobody_is_at_work_or_gives_way() -> None:
    turns = Turns()
    assert turns.do(lambda: 3) == 3
    with turns.at_work():
        ended: list[int] = []
        waiting = threading.Thread(target=lambda: ended.append(turns.do(lambda: 4)))
        waiting.start()
        time.sleep(0.05)
        assert not ended  # it must not come between what is one step
    waiting.join(10)
    assert ended == [4]


def test_an_errand_that_fails_fails_for_the_one_who_wants_it() -> None:
    def fail() -> None:
        raise ValueError("no sender")

    turns = Turns()
    with pytest.raises(ValueError, match="no sender"):
        turns.do(fail)
    assert turns.do(lambda: 1) == 1
