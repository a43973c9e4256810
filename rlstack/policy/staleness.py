"""How old the rollouts may be that a policy is trained on: each rank's own check of what the driver sends."""

from __future__ import annotations

from collections.abc import Iterable

from rlstack.config.schedule_words import AUTO
from rlstack.config.schema import Schedule


def max_age(schedule: Schedule) -> int | None:
    """The most steps by which rollouts may trail the policy that they train; None: any number.

    The generator's version is that of the last sync, at most s - 1 steps ago, and trails by `lag` more.
    """
    interval = schedule.sync_interval
    if interval == AUTO:
        if schedule.adaptive.replay is not None:  # the intervals are those of another run's settings
            return None
        interval = schedule.adaptive.max
    return None if interval is None else int(interval) - 1 + schedule.lag


def check_versions(versions: Iterable[int], *, policy_version: int, max_age: int | None) -> None:
    """Raise RuntimeError unless rollouts of `versions` may train the policy at `policy_version`."""
    oldest = 0 if max_age is None else max(0, policy_version - max_age)
    if refused := sorted({version for version in versions if not oldest <= version <= policy_version}):
        raise RuntimeError(
            f"the policy is at version {policy_version}, and the schedule lets it train on rollouts of "
            f"versions {oldest} to {policy_version}; these are of {', '.join(map(str, refused))}"
        )
