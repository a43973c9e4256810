"""Runs on hosts that are held at moments, and what has to come of them, whatever happens there."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.faults import invariants, tiny_run
from tests.faults.faults import Moment
from tests.faults.invariants import Left
from tests.multihost import moments
from tests.multihost.cluster import launch, start_ray
from tests.multihost.hosts import Hosts, end

DRIVER = ("python", "-m", "tests.multihost.driver")
PLAIN = ("rlstack",)
START_LIMITS = ("policy.start_timeout_s=180", "rollout.start_timeout_s=180")
LIMITS = (
    "policy.step_timeout_s",
    "rollout.generate_timeout_s",
    "transfer.timeout_s",
    "checkpoint.timeout_s",
)
END_S = 400.0  # for a run to end after it was disturbed, or after --resume


@contextmanager
def run_held_at(
    listed: Sequence[Moment], shared: Path, *, num_cpus: Sequence[int], limit_s: float
) -> Iterator[tuple[Hosts, subprocess.Popen[bytes]]]:
    """Hosts and a run on them, driven from the first, which stands still at each moment that is listed.

    num_cpus: of each host; without any the first has no other role.
    limit_s: for whatever the driver waits for once the roles have started.
    """
    moments.list_moments(shared, listed)
    with Hosts(len(num_cpus), shared=shared) as hosts:
        start_ray(hosts, num_cpus=num_cpus, env=moments.WATCHED)
        limits = [*START_LIMITS, *(f"{setting}={limit_s:g}" for setting in LIMITS)]
        driver = start(hosts, shared, *limits, command=DRIVER)
        try:
            yield hosts, driver
        finally:
            end(driver)


def start(
    hosts: Hosts, shared: Path, *arguments: str, command: Sequence[str] = PLAIN
) -> subprocess.Popen[bytes]:
    """Start the run, or with --resume go on with it."""
    settings, env = tiny_run.SETTINGS, moments.WATCHED
    return launch(hosts, *arguments, log=log(shared), command=command, settings=settings, env=env)


def resumed(hosts: Hosts, shared: Path) -> None:
    """Go on with the run until it has completed."""
    assert start(hosts, shared, "--resume").wait(END_S) == 0, log(shared).read_text()


def log(shared: Path) -> Path:
    """What the driver has said."""
    return shared / "driver.log"


def wait_for(shared: Path, i: int, moment: Moment, driver: subprocess.Popen[bytes]) -> int:
    """The host whose role has come to moment `i` and stands still; it is not the driver's."""
    moments.wait_until_reached(shared, i, driver)
    host = moments.host_of(shared / tiny_run.NAME, moment.watcher)
    assert host != 1
    return host


def wrong_with(shared: Path, undisturbed: Left) -> list[str]:
    """All that is lost of the undisturbed run, or differs from it."""
    left, schedule = tiny_run.read_left(shared / tiny_run.NAME, ended_s=0.0), tiny_run.schedule()
    return [
        *invariants.ended(left),
        *invariants.logged_once(left.steps, schedule.num_steps),
        *invariants.versions(left.steps, left.rollouts, schedule),
        *invariants.same_steps(left.steps, undisturbed.steps),
        *invariants.same_rollouts(left.rollouts, undisturbed.rollouts),
        *invariants.same_weights(left.weights, undisturbed.weights),
        *invariants.no_drafts(left.checkpoints, schedule),
    ]
