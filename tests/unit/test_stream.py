"""Rollouts in order and alike, whoever is quicker: engines, rewards or the trainer."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rlstack.config.schema import Batch, Cluster, Data, Placement, RunConfig, Task
from rlstack.config.schema import Rollout as RolloutSettings
from rlstack.data.records import Prompt, Rollout, RolloutGroup, Score, ScoredGroup
from rlstack.data.sampling import PromptSampler
from rlstack.errors import ConfigError
from rlstack.orchestration.engine_seat import Sampling
from rlstack.orchestration.schedule import Schedule
from rlstack.orchestration.stream import RolloutStream
from rlstack.rewards.router import Rewards
from rlstack.rewards.scorer import Question

TASKS = {"sums": "lengths", "notes": "judge"}
NUM_PROMPTS, N = 4, 2
PROMPTS = {
    task: [Prompt(task=task, row=row, problem=f"{task}{row}", token_ids=(row,)) for row in range(9)]
    for task in TASKS
}


class Engines:
    """Stands for an EngineGroup: answers in any order, `jitter` apart, with the version of its last sync.

    A prompt's rollouts say its place, the version, and which others were asked for along with it.
    """

    def __init__(self, jitter: random.Random) -> None:
        self.calls: list[list[int]] = []  # steps
        self.places: list[tuple[int, int]] = []  # of all calls
        self.answers: list[Future[tuple[Rollout, ...]]] = []  # to all calls
        self._version = 0
        self._jitter = jitter
        self._threads: list[threading.Thread] = []

    def hold(self, version: int) -> None:
        """As a commit: what was asked for before is sampled by then."""
        self.finish()
        self._version = version

    def submit(
        self, prompts: Sequence[Prompt], sampling: Sampling, *, stream: str, places: list[tuple[int, int]]
    ) -> list[Future[tuple[Rollout, ...]]]:
        self.calls.append(sorted({step for step, _ in places}))
        self.places += places
        answers: list[Future[tuple[Rollout, ...]]] = [Future() for _ in prompts]
        self.answers += answers
        text = f"{self.calls[-1]}"
        values = [
            tuple(
                Rollout(
                    token_ids=(k,),
                    generator_logprobs=(0.0,),
                    text=f"{prompt.problem} {place} {k} {text}",
                    finished=True,
                    version=self._version,
                )
                for k in range(sampling.n)
            )
            for prompt, place in zip(prompts, places, strict=True)
        ]
        order = self._jitter.sample(range(len(prompts)), len(prompts))

        def answer() -> None:
            for i in order:
                time.sleep(self._jitter.choice([0.0, 0.0, 0.0005]))
                answers[i].set_result(values[i])

        self._threads.append(threading.Thread(target=answer))
        self._threads[-1].start()
        return answers

    def attend(self) -> None:
        """Nobody is ever lost."""

    def finish(self) -> None:
        for thread in self._threads:
            thread.join()


class Lengths:
    """A score is of the text alone."""

    depends_on_batch = False

    def __init__(self, jitter: random.Random) -> None:
        self._jitter = jitter

    def score(self, questions: Sequence[Question]) -> list[tuple[Score, ...]]:
        time.sleep(self._jitter.choice([0.0, 0.001]))
        return [tuple(Score(reward=float(len(text))) for text in q.responses) for q in questions]

    def close(self) -> None:
        pass


class Judge(Lengths):
    """A score changes with what is scored beside it."""

    depends_on_batch = True

    def score(self, questions: Sequence[Question]) -> list[tuple[Score, ...]]:
        batch = float(sum(map(hash, questions)) % 1000)
        return [tuple(Score(reward=batch + len(text)) for text in q.responses) for q in questions]


def config(
    *, overlap: bool = True, max_steps_ahead: int = 4, placement: Placement = Placement.split
) -> RunConfig:
    return RunConfig(
        cluster=Cluster(placement=placement),
        batch=Batch(prompts_per_step=NUM_PROMPTS),
        rollout=RolloutSettings(n=N, overlap=overlap, max_steps_ahead=max_steps_ahead),
        data=Data(tasks=[Task(name=name, path="", reward=reward) for name, reward in TASKS.items()]),
    )


@contextmanager
def stream_of(
    engines: Engines,
    schedule: Schedule,
    settings: RunConfig,
    *,
    first_step: int = 0,
    kept: Mapping[int, Mapping[int, RolloutGroup]] | None = None,
    seed: int = 0,
) -> Iterator[RolloutStream]:
    jitter = random.Random(1)
    sampler = PromptSampler(PROMPTS, weights=dict.fromkeys(TASKS, 1.0), seed=seed)
    with Rewards(settings, {"lengths": Lengths(jitter), "judge": Judge(jitter)}) as rewards:
        stream = RolloutStream(
            sampler,
            engines,  # type: ignore[arg-type]
            rewards,
            schedule,
            settings,
            first_step=first_step,
            kept=kept,
        )
        stream.admit(version=schedule.generator_version_at(first_step))
        yield stream
    engines.finish()


def run(
    schedule: Schedule, *, seed: int, overlap: bool = True, max_steps_ahead: int = 4
) -> tuple[list[list[ScoredGroup]], list[list[int]]]:
    """The loop without a trainer: every step's scored groups, and what was asked for together."""
    engines = Engines(random.Random(seed))
    taken = []
    with stream_of(engines, schedule, config(overlap=overlap, max_steps_ahead=max_steps_ahead)) as stream:
        for step in range(schedule.num_steps):
            taken.append(stream.take(step))
            if schedule.syncs_at(version := step + 1):
                stream.complete(before=version)
                engines.hold(version)
                stream.admit(version=version)
    return taken, engines.calls


schedules = st.builds(
    Schedule,
    num_steps=st.integers(1, 12),
    sync_interval=st.none() | st.integers(1, 6),
    lag=st.integers(0, 3),
)


@settings(max_examples=40, deadline=None)
@given(schedule=schedules, seeds=st.tuples(st.integers(), st.integers()))
def test_what_is_trained_on_does_not_depend_on_timing(schedule: Schedule, seeds: tuple[int, int]) -> None:
    """Not even with an engine and a judge whose results depend on what they get together."""
    first, second = (run(schedule, seed=seed) for seed in seeds)
    assert first == second


@settings(max_examples=40, deadline=None)
@given(schedule=schedules, overlap=st.booleans(), seed=st.integers())
def test_each_step_has_its_prompts_its_version_and_its_scores(
    schedule: Schedule, overlap: bool, seed: int
) -> None:
    taken, _ = run(schedule, seed=seed, overlap=overlap)
    sampler = PromptSampler(PROMPTS, weights=dict.fromkeys(TASKS, 1.0), seed=0)
    for step, scored in enumerate(taken):
        assert [s.group.prompt for s in scored] == sampler.take(step, NUM_PROMPTS)
        for position, s in enumerate(scored):
            assert s.group.step == step
            assert {rollout.version for rollout in s.group.rollouts} == {schedule.version_for(step)}
            expected = f"{s.group.prompt.problem} {(step, position)} "
            assert all(rollout.text.startswith(expected) for rollout in s.group.rollouts)
            if s.group.prompt.task == "sums":
                assert [score.reward for score in s.scores] == [len(r.text) for r in s.group.rollouts]


def test_without_overlap_a_step_is_asked_for_when_it_is_taken() -> None:
    _, calls = run(Schedule(num_steps=4, sync_interval=2), seed=0, overlap=False)
    assert calls == [[0], [1], [2], [3]]


def test_an_interval_is_asked_for_at_once_and_in_pieces_beyond_the_limit() -> None:
    _, calls = run(Schedule(num_steps=9, sync_interval=3), seed=0)
    assert calls == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    _, calls = run(Schedule(num_steps=6, sync_interval=None), seed=0)
    assert calls == [[0, 1], [2, 3], [4, 5]]


@example(schedule=Schedule(num_steps=6, sync_interval=2, lag=2), seed=0)
@settings(max_examples=40, deadline=None)
@given(schedule=schedules, seed=st.integers())
def test_engines_that_share_gpus_have_answered_a_whole_interval_before_they_sleep(
    schedule: Schedule, seed: int
) -> None:
    """What is asked for at once is what it is side by side; only nobody trains meanwhile."""
    side_by_side, calls = run(schedule, seed=seed, max_steps_ahead=24)
    engines, taken = Engines(random.Random(seed)), []
    in_shifts = config(overlap=False, max_steps_ahead=24, placement=Placement.colocated)
    with stream_of(engines, schedule, in_shifts) as stream:
        for step in range(schedule.num_steps):
            taken.append(stream.take(step))
            assert all(answer.done() for answer in engines.answers)
            if schedule.syncs_at(version := step + 1):
                stream.complete(before=version)
                engines.hold(version)
                stream.admit(version=version)
    assert (engines.calls, taken) == (calls, side_by_side)


@given(schedule=schedules, max_steps_ahead=st.integers(3, 6))
@settings(max_examples=40, deadline=None)
def test_no_more_steps_wait_than_the_limit(schedule: Schedule, max_steps_ahead: int) -> None:
    engines = Engines(random.Random(0))
    with stream_of(engines, schedule, config(max_steps_ahead=max_steps_ahead)) as stream:
        for step in range(schedule.num_steps):
            assert sum(map(len, engines.calls)) - step <= max_steps_ahead
            stream.take(step)
            if schedule.syncs_at(version := step + 1):
                engines.hold(version)
                stream.admit(version=version)


@pytest.mark.parametrize("overlap", [True, False])
def test_rollouts_of_another_version_than_the_schedules_are_refused(overlap: bool) -> None:
    schedule = Schedule(num_steps=2, sync_interval=1)
    with stream_of(Engines(random.Random(0)), schedule, config(overlap=overlap)) as stream:
        stream.take(0)
        stream.admit(version=1)  # which no engine has received
        with pytest.raises(RuntimeError, match=r"step 1 come from versions \[0\].*asks for version 1"):
            stream.take(1)


class Failing(Engines):
    def submit(
        self, prompts: Sequence[Prompt], sampling: Sampling, *, stream: str, places: list[tuple[int, int]]
    ) -> list[Future[tuple[Rollout, ...]]]:
        answers: list[Future[tuple[Rollout, ...]]] = [Future() for _ in prompts]
        answers[1].set_exception(RuntimeError("engine 1 died"))
        return answers  # of which the others never come


def test_what_ends_an_engine_is_raised_where_the_step_is_taken() -> None:
    schedule = Schedule(num_steps=2, sync_interval=1)
    with (
        stream_of(Failing(random.Random(0)), schedule, config()) as stream,
        pytest.raises(RuntimeError, match="engine 1 died"),
    ):
        stream.take(0)


def groups_of(stream: RolloutStream, step: int) -> list[RolloutGroup]:
    return [scored.group for scored in stream.take(step)]


def texts(groups: Sequence[RolloutGroup]) -> list[list[str]]:
    """Without what else was asked for at the same time, which a resumed run does not repeat."""
    return [[rollout.text.partition("[")[0] for rollout in group.rollouts] for group in groups]


@pytest.mark.parametrize("overlap", [True, False])
@pytest.mark.parametrize("lag", [0, 2])
@pytest.mark.parametrize("first_step", [0, 2, 3, 4])
def test_a_stream_goes_on_from_what_another_one_had_finished(
    first_step: int, lag: int, overlap: bool
) -> None:
    schedule, chosen = Schedule(num_steps=8, sync_interval=3, lag=lag), config(overlap=overlap)
    engines = Engines(random.Random(0))
    rest: list[list[RolloutGroup]] = []
    with stream_of(engines, schedule, chosen) as stream:
        for step in range(schedule.num_steps):
            if step == first_step:
                stream.complete(before=schedule.generator_version_at(step))
                engines.finish()
                kept = stream.finished()
            groups = groups_of(stream, step)
            rest += [groups] if step >= first_step else []
            if schedule.syncs_at(version := step + 1):
                stream.complete(before=version)
                engines.hold(version)
                stream.admit(version=version)
    assert all(step >= first_step for step in kept)
    if held := schedule.generator_version_at(first_step):  # those of versions that no engine holds any more
        older = range(first_step, held + lag)
        assert all(len(kept[step]) == NUM_PROMPTS for step in older)
    some = {step: dict(list(groups.items())[: step % 2 + 2]) for step, groups in kept.items()}
    kept = {step: kept[step] if step < first_step + lag else some[step] for step in kept}

    again = Engines(random.Random(0))
    again.hold(schedule.generator_version_at(first_step))
    with stream_of(again, schedule, chosen, first_step=first_step, kept=kept) as stream:
        assert all(stream.finished()[step].items() >= kept[step].items() for step in kept)
        for step in range(first_step, schedule.num_steps):
            assert texts(groups_of(stream, step)) == texts(rest[step - first_step])
            if schedule.syncs_at(version := step + 1):
                stream.complete(before=version)
                again.hold(version)
                stream.admit(version=version)
    assert not {(step, position) for step in kept for position in kept[step]} & set(again.places)
    assert min(step for step, _ in again.places) >= first_step


def test_what_is_kept_is_still_finished_before_it_is_asked_for() -> None:
    schedule = Schedule(num_steps=6, sync_interval=1)
    engines = Engines(random.Random(0))
    with stream_of(engines, schedule, config(overlap=False)) as stream:
        kept = {3: dict(enumerate(groups_of(stream, 0)))}
    with stream_of(engines, schedule, config(), first_step=2, kept=kept) as stream:
        assert stream.finished()[3] == kept[3]


def test_a_group_that_is_kept_for_another_prompt_is_refused() -> None:
    schedule = Schedule(num_steps=2, sync_interval=None)
    engines = Engines(random.Random(0))
    with stream_of(engines, schedule, config()) as stream:
        kept = {0: dict(enumerate(groups_of(stream, 0)))}
    with (
        pytest.raises(ConfigError, match="another prompt for place 0 of step 0: row"),
        stream_of(engines, schedule, config(), kept=kept, seed=1),
    ):
        pass
