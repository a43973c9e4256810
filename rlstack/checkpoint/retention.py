"""Which checkpoints stay. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Candidate(NamedTuple):
    step: int
    selection: float | None  # the higher the better; None: not among the best


def kept(candidates: Iterable[Candidate], *, keep_last: int, keep_best: int) -> set[int]:
    """The steps of those that stay: the `keep_last` newest and the `keep_best` best, which may coincide.

    Of two that are equally good the later one is the better.
    """
    steps, judged = [], []
    for candidate in candidates:
        steps.append(candidate.step)
        if candidate.selection is not None:
            judged.append((candidate.selection, candidate.step))
    best = [step for _, step in sorted(judged, reverse=True)]
    return {*sorted(steps, reverse=True)[:keep_last], *best[:keep_best]}
