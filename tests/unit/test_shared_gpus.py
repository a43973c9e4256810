"""Who has the memory of shared GPUs: the loop's orders lead to shifts, whoever is lost in between."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from rlstack.config.schema import RunConfig, Transfer, TransferChannel, TransferMethod
from rlstack.errors import ConfigError
from rlstack.orchestration.roles import EngineLost
from rlstack.orchestration.shared_gpus import on_shared_gpus, work_in_shifts


@dataclass
class Party:
    """Policy, engines or weight sync: calls what it was given before it does something."""

    name: str
    done: list[str]
    losses: list[EngineLost] = field(default_factory=list)  # of the next orders
    _before: Callable[[], None] | None = None

    def before_work(self, do: Callable[[], None]) -> None:
        self._before = do

    before_round = before_work

    def work(self) -> None:
        assert self._before is not None
        self._before()
        self.done.append(self.name)

    def release_memory(self) -> None:
        self.done.append("release")

    def finish(self) -> None:
        self.done.append("finish")

    def sleep(self) -> None:
        self._order("sleep")

    def wake(self, *, weights_only: bool) -> None:
        self._order("wake weights" if weights_only else "wake")

    def mend(self, lost: EngineLost) -> None:
        self.done.append("mend")

    def _order(self, what: str) -> None:
        self.done.append(what)
        if self.losses:
            raise self.losses.pop()


class Team:
    def __init__(self) -> None:
        self.done: list[str] = []
        self.policy, self.engines, self.sync = (
            Party(name, self.done) for name in ("train", "sample", "sync")
        )
        work_in_shifts(self.policy, self.engines, self.sync)  # type: ignore[arg-type]

    def since(self) -> list[str]:
        done = self.done.copy()
        self.done.clear()
        return done


def test_an_interval_is_sampled_in_one_shift_and_trained_on_in_the_next() -> None:
    team = Team()
    team.engines.work()
    assert team.since() == ["release", "wake", "sample"]  # who is awake does not mind
    team.engines.work()
    assert team.since() == ["sample"]
    for _ in range(3):
        team.policy.work()
    assert team.since() == ["finish", "sleep", "train", "train", "train"]
    team.sync.work()
    team.engines.work()
    assert team.since() == ["release", "wake weights", "sync", "sample"]
    team.policy.work()
    team.engines.work()
    assert team.since() == ["finish", "sleep", "train", "release", "wake", "sample"]


def test_a_policy_that_goes_back_to_a_checkpoint_finds_the_memory_free() -> None:
    team = Team()
    team.policy.work()
    assert team.since() == ["finish", "sleep", "train"]
    work_in_shifts(team.policy, team.engines, team.sync)  # type: ignore[arg-type]
    team.sync.work()
    assert team.since() == ["release", "wake weights", "sync"]


def test_an_engine_that_is_lost_on_the_way_is_replaced_and_all_do_it_again() -> None:
    team = Team()
    team.engines.work()
    team.since()
    team.engines.losses = [EngineLost("gone", role=None), EngineLost("gone", role=None)]  # type: ignore[arg-type]
    team.policy.work()
    assert team.since() == ["finish", "sleep", "mend", "sleep", "mend", "sleep", "train"]
    team.engines.losses = [EngineLost("gone", role=None)]  # type: ignore[arg-type]
    team.engines.work()
    assert team.since() == ["release", "wake", "mend", "wake", "sample"]


def test_two_processes_on_one_gpu_have_one_way_for_weights() -> None:
    assert on_shared_gpus(RunConfig()).transfer.channel is TransferChannel.ipc
    with pytest.raises(ConfigError, match=r"channel = network: auto \| ipc is accepted with"):
        on_shared_gpus(RunConfig(transfer=Transfer(channel=TransferChannel.network)))
    with pytest.raises(ConfigError, match=r"method = gather: reshard is accepted with"):
        on_shared_gpus(RunConfig(transfer=Transfer(method=TransferMethod.gather)))
