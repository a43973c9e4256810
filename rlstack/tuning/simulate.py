"""Jobs of several roles on one clock: when each starts and ends, and what a role that has no work waits for.

A discrete-event simulation without chance. It knows nothing of what the jobs are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rlstack.tuning.parts import Sharing
from rlstack.tuning.prediction import RoleTime


@dataclass(frozen=True, slots=True)
class Job:
    """One piece of work. A role does its jobs one after the other, in the order of the list."""

    role: str
    reason: str  # what those who wait for this job wait for
    work_s: float  # alone on the machine
    cores: float  # of the shared ones, meanwhile
    after: tuple[int, ...] = ()  # places of earlier jobs in the list, all of which come first


@dataclass(frozen=True, slots=True)
class Span:
    start_s: float
    end_s: float


def simulate(jobs: Sequence[Job], sharing: Sharing) -> list[Span]:
    """When each job runs; every one starts as soon as those before it have ended."""
    before = predecessors(jobs)
    if sharing.cores is None:
        return _undisturbed(jobs, before)
    return _on_shared_cores(jobs, before, sharing.cores, sharing.slowdown)


def predecessors(jobs: Sequence[Job]) -> list[tuple[int, ...]]:
    """The jobs that each has to wait for: its `after`, and the one before it of its own role."""
    last: dict[str, int] = {}
    before = []
    for i, job in enumerate(jobs):
        assert all(place < i for place in job.after), f"job {i} comes before what it needs"
        assert 0 <= job.work_s < math.inf, job
        before.append((*job.after, last[job.role]) if job.role in last else job.after)
        last[job.role] = i
    return before


def _undisturbed(jobs: Sequence[Job], before: Sequence[tuple[int, ...]]) -> list[Span]:
    ends: list[float] = []
    spans = []
    for job, places in zip(jobs, before, strict=True):
        start = max((ends[place] for place in places), default=0.0)
        ends.append(start + job.work_s)
        spans.append(Span(start, ends[-1]))
    return spans


def _on_shared_cores(
    jobs: Sequence[Job], before: Sequence[tuple[int, ...]], cores: float, slowdown: float
) -> list[Span]:
    """Processor sharing: between two events every running job proceeds at a constant rate."""
    num_missing = [len(places) for places in before]
    followers: list[list[int]] = [[] for _ in jobs]
    for i, places in enumerate(before):
        for place in places:
            followers[place].append(i)
    starts, ends = [0.0] * len(jobs), [0.0] * len(jobs)
    now = 0.0
    left_s = {i: jobs[i].work_s for i, missing in enumerate(num_missing) if not missing}
    while left_s:
        rates = _rates({i: jobs[i].cores for i in left_s}, cores, slowdown)
        passing_s = min(left / rates[i] for i, left in left_s.items())
        ended = [i for i, left in left_s.items() if left / rates[i] <= passing_s]
        left_s = {i: left - passing_s * rates[i] for i, left in left_s.items()}
        now += passing_s
        for i in ended:
            del left_s[i]
            ends[i] = now
            for follower in followers[i]:
                num_missing[follower] -= 1
                if not num_missing[follower]:
                    left_s[follower] = jobs[follower].work_s
                    starts[follower] = now
    return [Span(start, end) for start, end in zip(starts, ends, strict=True)]


def _rates(demands: dict[int, float], cores: float, slowdown: float) -> dict[int, float]:
    """Progress of each running job per second: 1 alone on the machine."""
    asked = sum(demands.values())
    share = min(1.0, cores / asked) if asked else 1.0
    busy = min(cores, asked)
    return {i: share / (1 + slowdown * max(0.0, busy - demand)) for i, demand in demands.items()}


def role_times(jobs: Sequence[Job], spans: Sequence[Span]) -> dict[str, RoleTime]:
    """Of every role: busy, waiting by reason, and idle after its last job until the last of all ends."""
    before = predecessors(jobs)
    wall_s = max((span.end_s for span in spans), default=0.0)
    busy_s: dict[str, float] = {}
    waiting_s: dict[str, dict[str, float]] = {}
    free_at: dict[str, float] = {}
    for i, (job, span) in enumerate(zip(jobs, spans, strict=True)):
        waiting = waiting_s.setdefault(job.role, {})
        for reason, seconds in _blame(jobs, spans, before, i, since_s=free_at.get(job.role, 0.0)):
            waiting[reason] = waiting.get(reason, 0.0) + seconds
        busy_s[job.role] = busy_s.get(job.role, 0.0) + span.end_s - span.start_s
        free_at[job.role] = span.end_s
    return {
        role: RoleTime(busy_s=busy, waiting_s=waiting_s[role], idle_s=wall_s - free_at[role])
        for role, busy in busy_s.items()
    }


def _blame(
    jobs: Sequence[Job], spans: Sequence[Span], before: Sequence[tuple[int, ...]], i: int, *, since_s: float
) -> Iterator[tuple[str, float]]:
    """What ran, of the chain of jobs that job i had to wait for, from `since_s` to its start."""
    until_s = spans[i].start_s
    while until_s > since_s:
        i = max(before[i], key=lambda place: spans[place].end_s)
        start_s = max(since_s, spans[i].start_s)
        yield jobs[i].reason, until_s - start_s
        until_s = start_s
