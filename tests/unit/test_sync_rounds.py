"""Where rounds begin and end, in the loop with a fake transfer: never late, one at a time, the same rows."""

from __future__ import annotations

import json
from collections.abc import Set
from contextlib import nullcontext
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlstack.config.schema import Rollout, RunConfig, Transfer, TransferMethod
from rlstack.orchestration.schedule import Schedule
from rlstack.orchestration.sync_rounds import SyncRounds
from rlstack.orchestration.weight_sync import Ordered

schedules = st.builds(
    Schedule,
    num_steps=st.integers(1, 30),
    sync_interval=st.none() | st.integers(1, 8),
    lag=st.integers(0, 5),
)


class Transfers:
    """Stands for a WeightSync: the engines' version is that of the last order; notes what is done."""

    def __init__(self) -> None:
        self.done: list[tuple[str, int]] = []
        self.held = 0  # by engines, for what they are asked for now
        self.ended = 0  # the last version that is known to have arrived

    def begin(self, version: int) -> None:
        self.done.append(("begin", version))

    def order(self, version: int) -> Ordered:
        self.done.append(("order", version))
        self.held = version
        return Ordered(version, {}, {})

    def end(self, ordered: Ordered) -> dict[str, Any]:
        self.done.append(("end", ordered.version))
        self.ended = ordered.version
        return {"sync/version": ordered.version}

    def run(self, version: int) -> dict[str, Any]:
        self.begin(version)
        return self.end(self.order(version))


class Rollouts:
    """Stands for a RolloutStream: notes up to which version everything has been waited for."""

    def __init__(self, done: list[tuple[str, int]]) -> None:
        self._done = done

    def complete(self, *, before: int) -> None:
        self._done.append(("complete", before))


def config(*, overlap: bool, method: TransferMethod = TransferMethod.reshard) -> RunConfig:
    return RunConfig(rollout=Rollout(overlap=overlap), transfer=Transfer(method=method))


def rounds(
    schedule: Schedule, settings: RunConfig, transfers: Transfers, settled: dict[str, Any] | None = None
) -> SyncRounds:
    return SyncRounds(
        transfers,  # type: ignore[arg-type]
        Rollouts(transfers.done),  # type: ignore[arg-type]
        schedule,
        settings,
        phase=lambda name: nullcontext(),
        settled=settled,
    )


def loop(
    schedule: Schedule, settings: RunConfig, *, saved: Set[int] = frozenset(), resumed: Set[int] = frozenset()
) -> tuple[list[dict[str, Any]], Transfers]:
    """The rows of the loop, and what was done; checks at each step what it may count on.

    Versions in `saved` are saved, and at those in `resumed` another one goes on.
    """
    transfers, rows = Transfers(), []
    syncs = rounds(schedule, settings, transfers)
    for step in range(schedule.num_steps):
        assert schedule.version_for(step) <= transfers.ended  # before a rollout of it is trained on
        version = step + 1
        metrics = syncs.end_due(version)
        if schedule.syncs_at(version):
            syncs.begin(version)
            assert transfers.held == version  # what is asked for now, at the latest when it is needed
            metrics |= syncs.end_due(version)
        rows.append(metrics)
        if version in saved | resumed:
            syncs.settle()
            assert transfers.ended == transfers.held == schedule.generator_version_at(version)
        if version in resumed:
            syncs = rounds(schedule, settings, transfers, json.loads(json.dumps(syncs.settled())))
    syncs.end()
    return rows, transfers


@given(schedule=schedules, overlap=st.booleans())
def test_every_version_arrives_before_it_is_needed_one_at_a_time(schedule: Schedule, overlap: bool) -> None:
    _, transfers = loop(schedule, config(overlap=overlap))
    parts = [what for what in transfers.done if what[0] != "complete"]
    versions = [v for v in range(1, schedule.num_steps + 1) if schedule.syncs_at(v)]
    assert parts == [(part, v) for v in versions for part in ("begin", "order", "end")]


@given(schedule=schedules)
def test_the_rows_are_the_same_whether_anyone_waits_or_not(schedule: Schedule) -> None:
    assert loop(schedule, config(overlap=True))[0] == loop(schedule, config(overlap=False))[0]


@given(
    schedule=schedules,
    overlap=st.booleans(),
    saved=st.sets(st.integers(1, 30)),
    resumed=st.sets(st.integers(1, 30)),
)
def test_saving_and_going_on_from_there_change_no_row(
    schedule: Schedule, overlap: bool, saved: set[int], resumed: set[int]
) -> None:
    rows, transfers = loop(schedule, config(overlap=overlap), saved=saved, resumed=resumed)
    assert rows == loop(schedule, config(overlap=overlap))[0]
    versions = [v for v in range(1, schedule.num_steps + 1) if schedule.syncs_at(v)]
    assert [version for part, version in transfers.done if part == "end"] == versions


@given(schedule=schedules, overlap=st.booleans())
def test_older_rollouts_are_sampled_before_anyone_waits_for_engines_to_take_over(
    schedule: Schedule, overlap: bool
) -> None:
    _, transfers = loop(schedule, config(overlap=overlap))
    waits = "end" if overlap else "begin"
    for before, (part, version) in zip([("", 0), *transfers.done], transfers.done, strict=False):
        if part == waits:
            assert before == ("complete", version)


@pytest.mark.parametrize(
    ("interval", "lag", "row_of"),
    [
        (2, 0, {2: 2, 4: 4, 6: 6}),
        (3, 1, {3: 4}),  # version 6 arrives after the last step
        (2, 2, {2: 4, 4: 6}),
        (1, 3, {1: 2, 2: 3, 3: 4, 4: 5, 5: 6}),  # the next round begins
    ],
)
def test_a_rounds_metrics_are_in_the_row_before_the_first_step_that_needs_it(
    interval: int, lag: int, row_of: dict[int, int]
) -> None:
    rows, _ = loop(Schedule(num_steps=6, sync_interval=interval, lag=lag), config(overlap=True))
    found = {row["sync/version"]: number for number, row in enumerate(rows, 1) if row}
    assert found == row_of


@pytest.mark.parametrize("method", [TransferMethod.gather, TransferMethod.gather_rank0])
def test_a_gather_lets_nobody_go_on(method: TransferMethod) -> None:
    _, transfers = loop(Schedule(num_steps=4, sync_interval=2, lag=1), config(overlap=True, method=method))
    assert transfers.done[:4] == [("complete", 2), ("begin", 2), ("order", 2), ("end", 2)]
