"""The schedule whose sync interval is decided at every sync, from what the steps before it have shown."""

from __future__ import annotations

import json
import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from rlstack.config.schedule_words import AUTO, WITH_GENERATOR
from rlstack.config.schema import Adaptive
from rlstack.config.schema import Schedule as ScheduleConfig
from rlstack.errors import ConfigError
from rlstack.orchestration.adaptive import choose, look
from rlstack.orchestration.schedule import Schedule
from rlstack.orchestration.sync_cost import Row


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What was decided at one sync: a row of intervals.jsonl."""

    version: int  # of the sync at which the interval begins; 0: the start
    until: int  # version of the next sync
    before: int | None  # s of the interval that ends; None at the start
    interval: int  # s from here on; until - version is less where an evaluation comes in between
    reason: str
    drift: float | None = None  # nats per token at the age of the last step of `before`, by the fitted law
    exponent: float | None = None  # of the law
    floor: float | None = None  # nats per token: generator against trainer, same version
    sync_share: float | None = (
        None  # of the time, at s = `before`; unlike the others not the same in two runs
    )


@dataclass(frozen=True, kw_only=True)
class AdaptiveSchedule(Schedule):
    """A schedule that knows its syncs up to the next one: a pure function of the decisions so far.

    Of a step beyond, `version_for` says the next sync's version, which is the least that it can be. The
    decisions are plain data: given those of intervals.jsonl, and the rows of metrics.jsonl, a run goes on as
    the one that wrote them.
    """

    settings: Adaptive
    reference_follows: bool
    replayed: Mapping[int, Decision] | None = None  # by version
    decisions: list[Decision] = field(default_factory=list)

    def generator_version_at(self, step: int) -> int:
        if not self.decisions:
            return 0
        last = self.decisions[-1]
        return last.until if step >= last.until else self._decision_at(step).version

    def interval_at(self, step: int) -> int:
        decision = self._decision_at(step)
        return decision.until - decision.version

    def syncs_at(self, version: int) -> bool:
        return version > 0 and version == self.generator_version_at(version)

    def reference_version_at(self, step: int) -> int:
        if self.reference_follows:
            return self.generator_version_at(step)
        return super().reference_version_at(step)

    def reference_syncs_at(self, version: int) -> bool:
        if self.reference_follows:
            return self.syncs_at(version)
        return super().reference_syncs_at(version)

    def decide(self, version: int, rows: Sequence[Row]) -> dict[str, Any]:
        """Choose s for the interval that begins at `version`; once for each, in order, from 0 on.

        rows: metrics.jsonl up to the step that made `version`, the last of them with or without its times.
        Returns the decision as a row of intervals.jsonl.
        """
        next_sync = self.decisions[-1].until if self.decisions else 0
        assert version == next_sync, f"version {next_sync} is the next sync, not {version}"
        decision = self._decided(version, rows)
        if self.replayed is not None:
            past = self.replayed[version]
            decision = replace(decision, until=past.until, interval=past.interval, reason="replayed")
        self.decisions.append(decision)
        return asdict(decision)

    def go_on_after(self, decisions: Sequence[Row]) -> None:
        self.decisions[:] = [Decision(**row) for row in decisions]

    def _decision_at(self, step: int) -> Decision:
        """The last one of a version up to `step`."""
        return self.decisions[bisect_right(self.decisions, step, key=_version) - 1]

    def _decided(self, version: int, rows: Sequence[Row]) -> Decision:
        if not self.decisions:
            start = self.settings.start
            return Decision(
                version=0, until=self._until(0, start), before=None, interval=start, reason="start"
            )
        before = self.decisions[-1].interval
        seen = look(rows, interval=before)
        chosen = choose(self.settings, before, seen, lag=self.lag)
        return Decision(
            version=version,
            until=self._until(version, chosen.interval),
            before=before,
            interval=chosen.interval,
            reason=chosen.reason,
            drift=seen.law and seen.law.at(before - 1 + self.lag),
            exponent=seen.law and seen.law.exponent,
            floor=seen.floor,
            sync_share=seen.cost and seen.cost.share(before),
        )

    def _until(self, version: int, interval: int) -> int:
        """The next sync. One falls on each evaluation, and those before it cut the way there evenly."""
        if self.evaluate_every is None:
            return version + interval
        left = self.evaluate_every - version % self.evaluate_every
        return version + math.ceil(left / math.ceil(left / interval))


def build_schedule(config: ScheduleConfig) -> Schedule:
    """The schedule that the settings, which have been validated, describe.

    Raises ConfigError if the file to replay does not fit them.
    """
    if config.sync_interval != AUTO:
        return Schedule.of(config)
    every = config.reference_sync
    return AdaptiveSchedule(
        num_steps=config.num_steps,
        sync_interval=config.adaptive.start,
        lag=config.lag,
        reference_interval=every if isinstance(every, int) else None,
        reference_follows=every == WITH_GENERATOR,
        evaluate_every=config.evaluate_every,
        save_every=config.save_every,
        settings=config.adaptive,
        replayed=None if config.adaptive.replay is None else _read(Path(config.adaptive.replay), config),
    )


def _read(path: Path, config: ScheduleConfig) -> dict[int, Decision]:
    """The decisions in an intervals.jsonl, by version."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        decisions = {row.version: row for row in map(_decision, lines)}
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise ConfigError(
            f"schedule.adaptive.replay = {path}: is not the intervals.jsonl of a run ({error})"
        ) from None
    syncs, version = {0}, 0
    while version <= config.num_steps:
        if version not in decisions:
            raise ConfigError(
                f"schedule.adaptive.replay = {path}: has no decision at version {version}, and "
                f"schedule.num_steps is {config.num_steps}; give the log of a run of that many steps"
            )
        version = decisions[version].until
        syncs.add(version)
    every = config.evaluate_every
    if every is not None and (missing := set(range(every, config.num_steps, every)) - syncs):
        raise ConfigError(
            f"schedule.evaluate_every = {every}: the run of schedule.adaptive.replay had no sync at version "
            f"{min(missing)}; set it as in that run"
        )
    return decisions


def _decision(line: str) -> Decision:
    decision = Decision(**json.loads(line))
    version, until, interval = decision.version, decision.until, decision.interval
    if not all(type(count) is int for count in (version, until, interval)):
        raise ValueError("version, until and interval are integers")
    if version < 0 or until <= version or interval < 1:
        raise ValueError(f"the interval from version {version} ends at {until}")
    return decision


def _version(decision: Decision) -> int:
    return decision.version
