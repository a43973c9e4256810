"""How many tokens the engines have sampled, counted in the driver as their answers arrive."""

from __future__ import annotations

from collections import deque

_answers: deque[int] = deque()


def add(num_tokens: int) -> None:
    """Count those of an answer. From any thread."""
    _answers.append(num_tokens)


def take() -> int:
    """The tokens since the last call; each is counted once."""
    return sum(_answers.popleft() for _ in range(len(_answers)))
