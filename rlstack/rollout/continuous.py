"""Many requests through one vLLM engine, which is kept full until the last of them has begun."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

YIELD_EVERY_S = 0.02  # what has finished since is handed on together
BATCHES_QUEUED = 2  # full batches of sequences that vLLM is given at once; adding them takes time too

Finished = list[tuple[int, Any]]  # (place of the request, its vllm.RequestOutput)


def run_continuously(
    llm: Any,
    requests: Iterable[tuple[Any, Any]],
    *,
    max_num_seqs: int,
    between_steps: Callable[[], object] = lambda: None,
) -> Iterator[Finished]:
    """Run requests, pairs of a prompt and its SamplingParams, through `llm`, a vllm.LLM with no others.

    They are given to vLLM in their order, which is the order in which it begins them; what is decoded
    together depends on them alone, not on time. Yields the requests that have finished since the last time,
    in order of place. Every step of the engine is followed by `between_steps`. To be run to its end.
    """
    waiting, places = deque(enumerate(requests)), dict[int, int]()
    engine, finished, last_yield = llm.llm_engine, Finished(), time.monotonic()
    while waiting or engine.has_unfinished_requests():
        while waiting and engine.get_num_unfinished_requests() < BATCHES_QUEUED * max_num_seqs:
            place, (prompt, parameters) = waiting.popleft()
            (name,) = llm.enqueue([prompt], [parameters], use_tqdm=False)
            places[_number(name)] = place
        finished += [(places.pop(_number(o.request_id)), o) for o in engine.step() if o.finished]
        between_steps()
        if finished and time.monotonic() - last_yield >= YIELD_EVERY_S:
            yield sorted(finished, key=lambda item: item[0])
            finished, last_yield = [], time.monotonic()
    if finished:
        yield sorted(finished, key=lambda item: item[0])


def _number(request_id: str) -> int:
    """vllm.LLM counts its requests; enqueue() returns the number with something random after a hyphen."""
    return int(request_id.partition("-")[0])
