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
    is_needed: Callable[[], bool] = lambda: True,
) -> Iterator[Finished]:
    """Run requests, pairs of a prompt and its SamplingParams, through `llm`, a vllm.LLM with no others.

    They are given to vLLM in their order, which is the order in which it begins them; what is decoded
    together depends on them alone, not on time. Yields the requests that have finished since the last time,
    in order of place. Every step of the engine is followed by `between_steps`. To be run to its end, which
    comes at once, and without the results, when what they are for `is_needed` no more.
    """
    waiting, places, names = deque(enumerate(requests)), dict[int, int](), dict[int, str]()
    engine, finished, last_yield = llm.llm_engine, Finished(), time.monotonic()
    while (waiting or engine.has_unfinished_requests()) and is_needed():
        while waiting and engine.get_num_unfinished_requests() < BATCHES_QUEUED * max_num_seqs:
            place, (prompt, parameters) = waiting.popleft()
            (name,) = llm.enqueue([prompt], [parameters], use_tqdm=False)
            places[_number(name)] = place
            names[_number(name)] = name
        for output in engine.step():
            if output.finished:
                number = _number(output.request_id)
                del names[number]
                finished.append((places.pop(number), output))
        between_steps()
        if finished and time.monotonic() - last_yield >= YIELD_EVERY_S:
            yield sorted(finished, key=lambda item: item[0])
            finished, last_yield = [], time.monotonic()
    if names:
        engine.abort_request(list(names.values()), internal=True)
    elif finished:
        yield sorted(finished, key=lambda item: item[0])


def _number(request_id: str) -> int:
    """vllm.LLM counts its requests; enqueue() returns the number with something random after a hyphen."""
    return int(request_id.partition("-")[0])
