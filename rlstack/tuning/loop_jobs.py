"""The loop of rlstack.train as jobs of its roles, in the order in which it does them. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from rlstack.orchestration.chunks import chunk_at
from rlstack.orchestration.schedule import Schedule
from rlstack.tuning.batching import finish_times, lengths_of
from rlstack.tuning.parts import Parts
from rlstack.tuning.prediction import (
    CONTROL,
    CONTROLLER,
    EVALUATE,
    POLICY,
    REWARD,
    REWARDS,
    ROLLOUTS,
    SYNC,
    TRAIN,
    engine_name,
)
from rlstack.tuning.setup import Setup
from rlstack.tuning.simulate import Job

TRANSFER = "transfer"  # what moves weights; no process of its own

_PORTIONS = 4  # in which a step's groups leave an engine: fine enough for scoring beside generating


@dataclass(frozen=True, slots=True, order=True)
class Portion:
    """Groups of one step that one engine finishes at about the same time."""

    finished_s: float  # from the start of the call, the engine doing nothing else
    step: int
    engine: int
    num_groups: int


class LoopJobs:
    """`jobs` of a run; `ends`, the place of each step's last one; `syncs`, the places of the transfers.

    Engines with hardware of their own are all alike: the first, which has the most prompts, stands for all.
    """

    def __init__(self, parts: Parts, setup: Setup) -> None:
        self.jobs: list[Job] = []
        self.ends: list[int] = []
        self.syncs: list[int] = []
        self._parts = parts
        self._setup = setup
        self._schedule = setup.schedule
        self._num_engines = 1 if parts.sharing.cores is None else setup.engines
        self._calls = calls(self._schedule, setup.max_steps_ahead if setup.asks_ahead else 1)
        self._sampled: dict[int, list[int]] = {}  # by step: the engines' jobs
        self._scored: dict[int, list[int]] = {}  # by step: the jobs of its rewards
        self._held: list[int] = []  # what made the engines hold their version
        self._shift: list[int] = []  # the engines' jobs of the last call, after which they sleep
        self._version = 0
        self._last: dict[str, int] = {}  # by role: its last job so far
        for step in range(setup.num_steps):
            self._generate_ahead(step)
            self.ends.append(self._sync(step + 1, self._train(step)))

    def _generate_ahead(self, step: int) -> None:
        """Start the calls that start when `step` is taken: it, and what else may wait for its turn."""
        while self._calls and self._is_due(self._calls[0], step) and self._may_write(self._calls[0]):
            self._generate(self._calls.pop(0), self.ends[-1:] + self._held)

    def _is_due(self, call: range, step: int) -> bool:
        """Whether there is room for its rollouts when `step` is taken; in turns, whether it is its turn."""
        if not self._setup.overlap:
            return call.start <= step
        return call.stop <= step + 1 + self._setup.max_steps_ahead

    def _may_write(self, call: range) -> bool:
        return self._schedule.version_for(call.start) <= self._version

    def _generate(self, call: range, after: Sequence[int]) -> None:
        """The engines' work on the steps of `call`, and the scoring of what they finish."""
        portions = sorted(self._portions(call))
        simulated = sum(portion.num_groups for portion in portions) / len(call)
        alike = self._setup.prompts_per_step / simulated  # steps' groups, for each that is simulated
        passed_s = dict.fromkeys(range(self._num_engines), 0.0)
        for portion in portions:
            work_s = portion.finished_s - passed_s[portion.engine]
            passed_s[portion.engine] = portion.finished_s
            cores = self._parts.generation.cores
            sampled = self._add(engine_name(portion.engine), ROLLOUTS, work_s, cores, after)
            self._sampled.setdefault(portion.step, []).append(sampled)
            if self._setup.asks_ahead:
                self._score(portion.step, portion.num_groups * alike, [sampled])

        if self._setup.in_shifts:
            self._shift = [place for step in call for place in self._sampled[step]]

    def _portions(self, call: range) -> Iterator[Portion]:
        setup, workload = self._setup, self._parts.workload
        for engine in range(self._num_engines):
            num_prompts = len(range(engine, setup.prompts_per_step, setup.engines))
            finished_s = finish_times(
                self._parts.generation,
                lengths_of(workload, len(call) * num_prompts * setup.n),
                prompt_tokens=workload.prompt_tokens,
                max_num_seqs=setup.max_num_seqs,
            )
            # A group is finished with its last rollout.
            groups = [max(finished_s[i : i + setup.n]) for i in range(0, len(finished_s), setup.n)]
            for place, step in enumerate(call):
                of_step = sorted(groups[place * num_prompts : (place + 1) * num_prompts])
                for share in _split(of_step, _PORTIONS):
                    yield Portion(share[-1], step, engine, len(share))

    def _score(self, step: int, num_groups: float, after: Sequence[int]) -> None:
        scoring = self._parts.scoring
        of_step = scoring.seconds(self._setup.rollouts_per_step)
        work_s = of_step * num_groups / self._setup.prompts_per_step
        scored = self._add(REWARDS, REWARD, work_s, scoring.workers * scoring.cores, after)
        self._scored.setdefault(step, []).append(scored)

    def _train(self, step: int) -> int:
        setup, training, layout = self._setup, self._parts.training, self._setup.layout
        if not setup.asks_ahead:
            self._score(step, setup.prompts_per_step, self._sampled[step] + self.ends[-1:])
        controller = self._parts.controller
        work_s = controller.seconds(setup.rollouts_per_step)
        taken = self._scored[step] + self.ends[-1:] + self._shift
        controlled = self._add(CONTROLLER, CONTROL, work_s, controller.cores, taken)
        num_tokens = setup.prompts_per_step * self._parts.workload.trained_tokens_per_prompt
        work_s = training.seconds(num_tokens, layout)
        if setup.needs_reference_pass(step):
            work_s += training.reference_seconds(num_tokens, layout)
        busy_ranks = layout.num_ranks * (1 - layout.bubble_share(num_tokens))
        return self._add(POLICY, TRAIN, work_s, busy_ranks * training.cores_per_rank, [controlled])

    def _sync(self, version: int, trained: int) -> int:
        """What follows the step that made `version`; the place of what the next step waits for."""
        if not self._schedule.syncs_at(version):
            return trained
        while self._calls and self._schedule.version_for(self._calls[0].start) < version:
            self._generate(self._calls.pop(0), [trained, *self._held])  # what is left of the old version
        sync, engines = self._parts.sync, [engine_name(engine) for engine in range(self._num_engines)]
        if self._setup.syncs_beside:
            last, arriving = trained, [trained, *self._held]
            self.syncs.append(self._add(TRANSFER, SYNC, sync.transfer_s, sync.cores, arriving))
            landing = self.syncs[-1:]
            self._held = [self._add(engine, SYNC, sync.pause_s, sync.cores, landing) for engine in engines]
        else:
            sampled = [place for engine in engines if (place := self._last.get(engine)) is not None]
            last = self._add(TRANSFER, SYNC, sync.seconds, sync.cores, [trained, *sampled])
            self.syncs.append(last)
            self._held = [last]
        if self._schedule.evaluates_at(version):
            last = self._add(CONTROLLER, EVALUATE, self._parts.evaluation_s, 1.0, [last, *self._held])
            self._held = [last]
        self._version = version
        return last

    def _add(self, role: str, reason: str, work_s: float, cores: float, after: Sequence[int]) -> int:
        self.jobs.append(Job(role, reason, work_s, cores, tuple(after)))
        self._last[role] = len(self.jobs) - 1
        return self._last[role]


def calls(schedule: Schedule, max_steps_ahead: int) -> list[range]:
    """The steps whose rollouts are asked for together, as the loop does (orchestration.chunks)."""
    found: list[range] = []
    while (start := found[-1].stop if found else 0) < schedule.num_steps:
        found.append(chunk_at(schedule, start, max_steps=max_steps_ahead))
    return found


def _split(times: Sequence[float], count: int) -> list[Sequence[float]]:
    """At most `count` stretches of about the same length, none of them empty."""
    bounds = [len(times) * i // count for i in range(count + 1)]
    return [times[low:high] for low, high in pairwise(bounds) if low < high]
