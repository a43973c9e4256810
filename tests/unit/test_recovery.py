"""Engines that are lost are replaced, hold what the others hold, and answer what was not answered."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from rlstack.config.schema import Rollout as RolloutSettings
from rlstack.config.schema import RunConfig
from rlstack.data.records import Prompt, Rollout
from rlstack.orchestration import engine_group, engine_seat
from rlstack.orchestration.engine_group import EngineGroup
from rlstack.orchestration.engine_seat import Answer, Sampling
from rlstack.orchestration.home import Home
from rlstack.orchestration.protocols import GeneratorEngine
from rlstack.orchestration.recovery import EngineRecovery
from rlstack.orchestration.restarts import Restarts
from rlstack.orchestration.roles import BackToCheckpoint, EngineLost, OlderVersionLost, RoleError
from rlstack.orchestration.weight_sync import Ordered
from rlstack.transfer.errors import TransferError

LIMIT_S = 10.0
SAMPLING = Sampling(n=2, temperature=1.0, top_p=1.0)


class Role:
    """Stands for an engine's role: it answers in its streams, until it is told to die.

    A stream whose version it does not hold is refused, as the engine does.
    """

    def __init__(self, index: int, life: int) -> None:
        self.name = self.title = f"engine {index}"
        self.home = Home()
        self.log = "x"
        self.index, self.life = index, life
        self.holds = 0
        self.answers = True  # whether it works through its streams, or stands still
        self.dead = False
        self.killed = False
        self.loaded = False
        self.first_needed = 0

    def stream(
        self, method: object, prompts: list[Prompt], **keywords: Any
    ) -> tuple[Role, list[Prompt], dict[str, Any]]:
        assert method is GeneratorEngine.generate_stream
        return self, prompts, keywords

    def start_beside(self, method: object, *, before: int) -> None:
        assert method is GeneratorEngine.drop_streams
        self.first_needed = before

    def kill(self) -> None:
        self.dead = self.killed = True

    def note_processes(self) -> None:
        assert self.loaded


def yielded(
    stream: tuple[Role, list[Prompt], dict[str, Any]], *, is_needed: Callable[[], bool], **limits: Any
) -> Iterator[list[tuple[int, Answer]]]:
    role, prompts, asked = stream
    for place, prompt in enumerate(prompts):
        while is_needed() and not role.answers and not role.dead:
            time.sleep(0.001)
        if not is_needed() or asked["number"] < role.first_needed:
            return
        if role.dead:
            raise EngineLost(f"sampling rollouts: {role.name} died\n  its log: x", role=role)  # type: ignore[arg-type]
        if role.holds != asked["version"]:
            raise RoleError(f"{role.name} holds {role.holds}, not {asked['version']}")
        text = f"{prompt.problem} {asked['seeds'][place]}"
        rollout = Rollout(
            token_ids=(1,), generator_logprobs=(0.0,), text=text, finished=True, version=role.holds
        )
        yield [(place, (rollout,) * asked["n"])]


class Sync:
    """Stands for a WeightSync; `trouble` is raised by what is done next."""

    def __init__(self) -> None:
        self.under_way: Ordered | None = None
        self.brought: list[tuple[int, list[int]]] = []
        self.compared: list[int] = []  # engines whose version 0 was held against the policy's
        self.lost: RoleError | None = None
        self.engines: EngineGroup
        self.trouble: list[Exception] = []

    def check_loaded(self, roles: list[Any]) -> None:
        if self.trouble:
            raise self.trouble.pop()
        assert all(role.loaded and role.holds == 0 for role in roles)
        self.compared += [role.index for role in roles]

    def bring(self, version: int, roles: list[Any]) -> None:
        if self.trouble:
            raise self.trouble.pop()
        self.brought.append((version, [role.index for role in roles]))
        for role in roles:
            assert role.loaded
            role.holds = version

    def redo(self) -> None:
        assert self.under_way is not None
        self.bring(self.under_way.version, self.engines.roles)
        self.under_way.metrics = {}

    def who_is_lost(self) -> RoleError | None:
        return self.lost


class Team:
    """Two engines, and what has become of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, max_restarts: int = 3) -> None:
        self.roles: list[Role] = []  # all that there ever were
        self.rows: list[dict[str, Any]] = []
        monkeypatch.setattr(engine_seat, "yielded", yielded)
        monkeypatch.setattr(engine_group, "Role", self._start)
        monkeypatch.setattr(engine_group, "wait_for", self._load)
        config = RunConfig(rollout=RolloutSettings(engines=2))
        self.engines = EngineGroup(config, logs=Path("logs"), home_of=lambda name: Home())
        self.engines.wait_until_ready()
        self.sync = Sync()
        self.sync.engines = self.engines
        self.restarts = Restarts(max_restarts, self.rows.append)
        recovery = EngineRecovery(self.engines, self.restarts, self.sync)  # type: ignore[arg-type]
        self.engines.mend_with(recovery.mend)

    @property
    def now(self) -> list[Role]:
        """The engines that are there."""
        return [[role for role in self.roles if role.index == index][-1] for index in range(2)]

    def hold(self, version: int) -> None:
        self.engines.version = version
        for role in self.now:
            role.holds = version

    def ask(self, step: int, count: int = 6) -> list[Future[Answer]]:
        prompts = [Prompt(task="sums", row=i, problem=f"p{step}.{i}", token_ids=(i,)) for i in range(count)]
        places = [(step, position) for position in range(count)]
        return self.engines.submit(prompts, SAMPLING, stream="train", places=places)

    def texts(self, answers: list[Future[Answer]]) -> list[tuple[str, int]]:
        """What was answered, and by which version; waits as the loop does."""
        deadline = time.monotonic() + LIMIT_S
        while not all(answer.done() for answer in answers) and time.monotonic() < deadline:
            self.engines.attend()
            time.sleep(0.001)
        return [(answer.result(0)[0].text, answer.result(0)[0].version) for answer in answers]

    def _start(self, name: str, *, build: partial[Any], **keywords: Any) -> Role:
        assert keywords["lost"] is EngineLost and build.func is engine_group.build_engine
        index = build.keywords["index"]
        self.roles.append(Role(index, sum(role.index == index for role in self.roles)))
        return self.roles[-1]

    def _load(self, roles: list[Role], **limits: Any) -> None:
        for role in roles:
            role.loaded = True


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Team]]:
    # A call of Role.start stands for its role: it is always the one that loads.
    monkeypatch.setattr(Role, "start", lambda self, method: self, raising=False)
    made: list[Team] = []

    def make(**keywords: Any) -> Team:
        made.append(Team(monkeypatch, **keywords))
        return made[-1]

    yield make
    for team in made:
        team.engines.stop_reading()


def undisturbed(make: Callable[..., Team], version: int) -> list[tuple[str, int]]:
    team = make()
    team.hold(version)
    return team.texts(team.ask(4)) + team.texts(team.ask(5))


@pytest.mark.parametrize("version", [0, 3])
def test_the_next_engine_gets_the_version_and_is_asked_for_what_is_missing(
    make: Callable[..., Team], version: int
) -> None:
    team = make()
    team.hold(version)
    first, lost = team.now
    lost.answers = False
    answers = team.ask(4) + team.ask(5)
    lost.dead = True
    assert team.texts(answers) == undisturbed(make, version)
    assert team.now[0] is first and lost.killed
    assert team.sync.brought == ([(3, [1])] if version else [])
    assert team.sync.compared == ([] if version else [1])
    (row,) = team.rows
    assert (row["role"], row["reason"]) == ("engine 1", "sampling rollouts: engine 1 died")


def test_an_engine_that_has_loaded_other_weights_answers_nothing(make: Callable[..., Team]) -> None:
    team = make()
    lost = team.now[1]
    lost.answers = False
    answers = team.ask(4)
    lost.dead = True
    team.sync.trouble.append(TransferError("engine 1 has loaded other weights than the policy"))
    with pytest.raises(TransferError, match="engine 1 has loaded other weights"):
        team.texts(answers)
    assert not any(answer.done() for answer in answers[1::2])  # those that it was asked for


def test_both_engines_may_be_lost_at_once(make: Callable[..., Team]) -> None:
    team = make()
    team.hold(3)
    for role in team.now:
        role.dead = True
    assert team.texts(team.ask(4) + team.ask(5)) == undisturbed(make, 3)
    assert sorted(row["role"] for row in team.rows) == ["engine 0", "engine 1"]


def test_an_engine_that_is_lost_while_it_takes_anothers_place_is_replaced_as_well(
    make: Callable[..., Team],
) -> None:
    team = make()
    team.hold(3)
    team.now[1].dead = True

    def lose(version: int, roles: list[Any]) -> None:
        team.sync.bring = bring  # type: ignore[method-assign]
        raise EngineLost("bringing: engine 1 died", role=roles[0])

    bring, team.sync.bring = team.sync.bring, lose  # type: ignore[method-assign]
    assert team.texts(team.ask(4) + team.ask(5)) == undisturbed(make, 3)
    assert [row["reason"] for row in team.rows] == [
        "sampling rollouts: engine 1 died",
        "bringing: engine 1 died",
    ]
    assert [role.killed for role in team.roles if role.index == 1] == [True, True, False]


def test_an_engine_that_is_lost_while_all_meet_a_new_one_is_replaced_and_both_go_on(
    make: Callable[..., Team],
) -> None:
    team = make()
    team.hold(3)
    first, second = team.now
    second.dead = True

    def lose(version: int, roles: list[Any]) -> None:
        team.sync.bring = bring  # type: ignore[method-assign]
        first.dead = True
        raise EngineLost("opening: engine 0 died", role=first)  # type: ignore[arg-type]

    bring, team.sync.bring = team.sync.bring, lose  # type: ignore[method-assign]
    assert team.texts(team.ask(4) + team.ask(5)) == undisturbed(make, 3)
    assert team.sync.brought == [(3, [1, 0])]
    assert [row["role"] for row in team.rows] == ["engine 1", "engine 0"]


def test_in_a_round_everyone_finishes_the_older_version_and_the_round_is_done_again(
    make: Callable[..., Team],
) -> None:
    team = make()
    team.hold(3)
    first, lost = team.now
    older = team.ask(5)
    while not all(answer.done() for answer in older[1::2]):  # the lost one's share
        time.sleep(0.001)
    team.sync.under_way = Ordered(6)
    team.engines.version = 6
    lost.dead = True
    newer = team.ask(6)  # which the first one refuses, for its round does not end
    assert team.texts(older) == [(f"p5.{i} {s}", 3) for i, s in enumerate(seeds(make, 5))]
    assert team.texts(newer) == [(f"p6.{i} {s}", 6) for i, s in enumerate(seeds(make, 6))]
    assert team.sync.brought == [(6, [0, 1])]
    assert team.sync.under_way.metrics == {}
    assert not first.killed


def seeds(make: Callable[..., Team], step: int) -> list[str]:
    team = make()
    return [text.partition(" ")[2] for text, _ in team.texts(team.ask(step))]


def test_rollouts_of_a_version_that_nobody_holds_take_the_run_back(make: Callable[..., Team]) -> None:
    team = make()
    team.hold(3)
    lost = team.now[1]
    lost.answers = False
    answers = team.ask(5)
    team.sync.under_way = Ordered(6)
    lost.dead = True
    with pytest.raises(OlderVersionLost, match="engine 1 died") as raised:
        team.texts(answers)
    assert isinstance(raised.value, BackToCheckpoint)
    assert raised.value.role is lost
    assert team.rows == []  # who goes back counts it


def test_an_engine_that_refuses_because_another_one_was_lost_is_not_to_blame(
    make: Callable[..., Team],
) -> None:
    """One that stands still: nobody hears of that before the others give up."""
    team = make()
    team.hold(3)
    still = team.now[1]
    still.answers = False
    team.sync.under_way = Ordered(6)
    team.engines.version = 6
    why = "syncing version 6: no answer from engine 1"
    team.sync.lost = EngineLost(why, role=still)  # type: ignore[arg-type]
    assert {version for _, version in team.texts(team.ask(6))} == {6}
    assert [row["role"] for row in team.rows] == ["engine 1"]


def test_a_refusal_that_nobody_was_lost_for_ends_the_run(make: Callable[..., Team]) -> None:
    team = make()
    team.engines.version = 6
    with pytest.raises(RoleError, match=r"engine \d holds 0, not 6"):
        team.texts(team.ask(6))
    assert team.rows == []


def test_one_loss_too_many_is_an_error_that_says_which(make: Callable[..., Team]) -> None:
    team = make(max_restarts=1)
    team.now[0].dead = True
    team.texts(team.ask(0))
    team.now[1].dead = True
    with pytest.raises(RoleError, match=r"engine 1 died \(its log: x\).*1 role \(recovery\.max_restarts\)"):
        team.texts(team.ask(1))
    assert [row["role"] for row in team.rows] == ["engine 0"]


def test_what_is_abandoned_is_neither_answered_nor_asked_for_again(make: Callable[..., Team]) -> None:
    team = make()
    team.hold(3)
    for role in team.now:
        role.answers = False
    answers = team.ask(4)
    team.engines.abandon()
    assert all(answer.cancelled() for answer in answers)
    assert team.engines.version is None
    team.engines.ask_again()
    for role in team.now:
        role.answers = True
    team.hold(0)
    assert {version for _, version in team.texts(team.ask(0))} == {0}
