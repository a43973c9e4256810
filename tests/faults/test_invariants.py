"""Each invariant finds what it is for, in what a run without a fault would have left."""

from dataclasses import replace

import pytest

from rlstack.orchestration.schedule import Schedule
from tests.faults.faults import Action, Fault, Phase, Role
from tests.faults.invariants import Left, problems
from tests.faults.results import as_row

SCHEDULE = Schedule(num_steps=8, sync_interval=4, save_every=3)
ENGINE = Fault(Role.engine, Phase.forward, Action.kill)
DRIVER = Fault(Role.driver, Phase.forward, Action.kill)
VERIFIER = Fault(Role.verifier, Phase.scoring, Action.kill)


def step_row(step):
    row = {"step": step + 1, "version_age": step - SCHEDULE.version_for(step), "loss/total": 0.5 + step}
    if SCHEDULE.syncs_at(step + 1):
        row["sync/version"] = step + 1
    return row | {"time/step_s": 1.0}


def rollout_rows(step):
    return [{"step": step + 1, "version": SCHEDULE.version_for(step), "text": str(i)} for i in range(2)]


CLEAN = Left(
    summary={"status": "completed"},
    steps=[step_row(step) for step in range(8)],
    rollouts=[row for step in range(8) for row in rollout_rows(step)],
    restarts=[],
    weights={"model.safetensors": "ab"},
    checkpoints=["step-00000006", "step-00000008"],
    struck=True,
    ended_s=30.0,
)
UNDISTURBED = replace(CLEAN, struck=False)
RESTARTED = replace(CLEAN, restarts=[{"role": "engine 0"}])


def found(left, fault=VERIFIER):
    return problems(left, UNDISTURBED, schedule=SCHEDULE, fault=fault)


def test_nothing_is_found_where_nothing_is_wrong():
    assert not found(UNDISTURBED, fault=None)
    assert not found(CLEAN)
    assert not found(RESTARTED, fault=ENGINE)
    assert not found(replace(CLEAN, summary={"status": "completed", "resumed": [6]}), fault=DRIVER)
    slower = [row | {"time/step_s": 9.0} for row in CLEAN.steps]
    assert not found(replace(CLEAN, steps=slower))


def changed(rows, i, **values):
    return [row | values if place == i else row for place, row in enumerate(rows)]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"ended_s": None}, "did not end"),
        ({"summary": {"status": "failed"}}, "status is failed"),
        ({"summary": {}}, "status is missing"),
        ({"steps": CLEAN.steps[:-1]}, "were logged"),
        ({"steps": [*CLEAN.steps[:3], CLEAN.steps[2], *CLEAN.steps[3:]]}, "were logged"),
        ({"steps": [CLEAN.steps[1], CLEAN.steps[0], *CLEAN.steps[2:]]}, "were logged"),
        ({"steps": changed(CLEAN.steps, 5, version_age=5)}, "step 5 trained on version 0, not 4"),
        ({"steps": changed(CLEAN.steps, 4, **{"sync/version": 5})}, "version 5 was synced"),
        ({"steps": [{k: v for k, v in row.items() if k != "sync/version"} for row in CLEAN.steps]}, "due"),
        ({"steps": changed(CLEAN.steps, 2, **{"loss/total": 2.5000001})}, "step 3: loss/total"),
        ({"steps": changed(CLEAN.steps, 2, **{"guard/skipped": 1.0})}, "step 3: guard/skipped"),
        ({"rollouts": changed(CLEAN.rollouts, 12, version=0)}, "step 6 has rollouts of version 0"),
        ({"rollouts": changed(CLEAN.rollouts, 3, text="other")}, "row 3 differs"),
        ({"rollouts": [*CLEAN.rollouts, CLEAN.rollouts[-1]]}, "17 rows, not 16"),
        ({"rollouts": CLEAN.rollouts[:-1]}, "15 rows, not 16"),
        ({"weights": {"model.safetensors": "ac"}}, "of the model differs"),
        ({"weights": {}}, "no model"),
        ({"checkpoints": [*CLEAN.checkpoints, ".step-00000006.part"]}, ".part"),
        ({"checkpoints": ["step-00000006"]}, "does not hold step-00000008"),
        ({"processes": ["ray::engine (stopped)"]}, "still running"),
        ({"struck": False}, "never struck"),
    ],
)
def test_a_violation_is_found(changes, says):
    assert any(says in problem for problem in found(replace(CLEAN, **changes)))


@pytest.mark.parametrize("fault", [ENGINE, DRIVER])
def test_a_run_that_does_not_tell_of_its_fault_is_found(fault):
    assert len(found(CLEAN, fault=fault)) == 1


def test_a_restart_of_another_role_does_not_tell_of_it():
    assert found(RESTARTED, fault=Fault(Role.policy_0, Phase.forward, Action.kill))


def test_an_undisturbed_run_that_tells_of_a_restart_is_found():
    assert found(RESTARTED, fault=None)


def test_a_row_of_the_table_says_what_was_lost():
    row = as_row(ENGINE, RESTARTED, [], undisturbed_s=20.0)
    assert row["survived"] and row["seconds_lost"] == 10.0 and row["roles_replaced"] == 1
    late = as_row(ENGINE, replace(RESTARTED, ended_s=None), ["the run did not end"], undisturbed_s=20.0)
    assert not late["survived"] and late["seconds_lost"] is None
