"""What has to hold after a run, whatever happened in it. Pure: each gives what is wrong, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from rlstack.orchestration.schedule import Schedule
from rlstack.telemetry.metrics import is_timing
from tests.faults.faults import Fault, Role

Rows = Sequence[Mapping[str, Any]]

# What restarts.jsonl calls the role that is replaced, for those that the controller replaces.
REPLACED = {
    Role.policy_0: "policy",
    Role.policy_1: "policy",
    Role.engine: "engine 0",
    Role.engine_worker: "engine 0",
}


@dataclass(frozen=True)
class Left:
    """What a run has left behind: its files, and its processes."""

    summary: Mapping[str, Any]  # summary.json; {}: none
    steps: Rows  # metrics.jsonl
    rollouts: Rows  # rollouts.jsonl
    restarts: Rows  # restarts.jsonl
    weights: Mapping[str, str]  # name of a file of the model: its digest
    checkpoints: Sequence[str]  # the names in checkpoints/
    processes: Sequence[str] = ()  # those that have not ended
    struck: bool = False  # a fault has
    ended_s: float | None = None  # from the first start to the last end; None: it did not end by itself


def problems(left: Left, undisturbed: Left, *, schedule: Schedule, fault: Fault | None) -> list[str]:
    """All that is wrong with what a run with `fault` has left."""
    return [
        *ended(left),
        *logged_once(left.steps, schedule.num_steps),
        *versions(left.steps, left.rollouts, schedule),
        *same_steps(left.steps, undisturbed.steps),
        *same_rollouts(left.rollouts, undisturbed.rollouts),
        *same_weights(left.weights, undisturbed.weights),
        *no_drafts(left.checkpoints, schedule),
        *nothing_running(left.processes),
        *told(left, fault),
    ]


def ended(left: Left) -> list[str]:
    """The run has completed, by itself."""
    if left.ended_s is None:
        return ["the run did not end within the limit"]
    status = left.summary.get("status", "missing")
    return [] if status == "completed" else [f"the run's status is {status}"]


def logged_once(steps: Rows, num_steps: int) -> list[str]:
    """Each step is there once, and they are in order."""
    found = [row["step"] for row in steps]
    expected = list(range(1, num_steps + 1))
    return [] if found == expected else [f"steps {found} were logged"]


def versions(steps: Rows, rollouts: Rows, schedule: Schedule) -> list[str]:
    """Each step's rollouts are of the version that the schedule asks for, by both files; so are the syncs."""
    wrong = []
    for row in steps:
        step = row["step"] - 1
        if (found := step - row["version_age"]) != (expected := schedule.version_for(step)):
            wrong.append(f"step {step} trained on version {found:g}, not {expected}")
        synced = row.get("sync/version")
        if synced is not None and not (schedule.syncs_at(synced) and synced <= row["step"]):
            wrong.append(f"version {synced} was synced by step {row['step']}")
    sampled = {(row["step"] - 1, row["version"]) for row in rollouts}
    wrong += [
        f"step {step} has rollouts of version {version}"
        for step, version in sorted(sampled)
        if version != schedule.version_for(step)
    ]
    due = [version for version in range(1, schedule.num_steps + 1) if schedule.syncs_at(version)]
    synced_versions = [row["sync/version"] for row in steps if "sync/version" in row]
    return wrong if synced_versions == due else [*wrong, f"synced were {synced_versions}, due {due}"]


def same_steps(steps: Rows, undisturbed: Rows) -> list[str]:
    """All metrics but times are those of the undisturbed run."""
    wrong = []
    for row, expected in zip(steps, undisturbed, strict=False):  # logged_once tells of missing ones
        names = [name for name in {**expected, **row} if not is_timing(name)]
        differing = [name for name in names if row.get(name) != expected.get(name)]
        wrong += [
            f"step {row['step']}: {name} is {row.get(name)}, not {expected.get(name)}"
            for name in differing[:3]
        ]
    return wrong[:5]


def same_rollouts(rollouts: Rows, undisturbed: Rows) -> list[str]:
    """rollouts.jsonl has the rows of the undisturbed run, in its order."""
    for i, (row, expected) in enumerate(zip_longest(rollouts, undisturbed)):
        if row != expected:
            what = [row, expected] if row is None or expected is None else _differences(row, expected)
            counts = f"{len(rollouts)} rows, not {len(undisturbed)}"
            return [f"rollouts.jsonl has {counts}; row {i} differs: {what!s:.200}"]
    return []


def same_weights(weights: Mapping[str, str], undisturbed: Mapping[str, str]) -> list[str]:
    """The files of the model are those of the undisturbed run, byte for byte."""
    if not weights:
        return ["there is no model"]
    differing = sorted(
        name for name in {*weights, *undisturbed} if weights.get(name) != undisturbed.get(name)
    )
    return [f"{name} of the model differs" for name in differing]


def no_drafts(checkpoints: Sequence[str], schedule: Schedule) -> list[str]:
    """checkpoints/ holds nothing but checkpoints of versions that are saved, among them the last."""
    known = {
        f"step-{version:08d}" for version in range(1, schedule.num_steps + 1) if schedule.saves_at(version)
    }
    wrong = [f"checkpoints holds {name}" for name in sorted(set(checkpoints) - known)]
    last = f"step-{schedule.num_steps:08d}"
    return wrong if last in checkpoints or not known else [*wrong, f"checkpoints does not hold {last}"]


def nothing_running(processes: Sequence[str]) -> list[str]:
    """No process of the run is left; one that was stalled has been ended, too."""
    return [f"still running: {process}" for process in processes]


def told(left: Left, fault: Fault | None) -> list[str]:
    """The fault has struck, and the run tells of it; an undisturbed run tells of nothing."""
    if fault is None:
        noted = [*left.restarts, *left.summary.get("resumed", ())]
        return [f"an undisturbed run tells of {row}" for row in noted]
    if not left.struck:
        return ["the fault never struck"]
    if fault.role is Role.driver:
        return [] if left.summary.get("resumed") else ["summary.json does not say that the run was resumed"]
    if fault.role in REPLACED:
        roles = [str(row.get("role")) for row in left.restarts]
        if not any(REPLACED[fault.role] in role for role in roles):
            return [f"restarts.jsonl tells of {roles}, not of {REPLACED[fault.role]}"]
    return []


def _differences(row: Mapping[str, Any], expected: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: (row.get(name), expected.get(name))
        for name in {**row, **expected}
        if row.get(name) != expected.get(name)
    }
