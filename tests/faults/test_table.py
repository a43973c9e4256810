"""The table of faults, and what strikes."""

import json
import os
import signal
import subprocess
import sys

import pytest

from tests.faults.faults import FAULTS, MOMENTS, Action, Fault, Phase, Role
from tests.faults.strike import MARKER, Striker, Watched, as_fault, as_text, find
from tests.faults.tiny_run import schedule

SAVING = {Phase.snapshot, Phase.writing, Phase.committing}


def test_every_role_is_killed_in_every_phase_and_stalled_in_some():
    killed = {(fault.role, fault.phase) for fault in FAULTS if fault.action is Action.kill}
    assert killed == {(role, phase) for role in Role for phase in Phase}
    assert {fault.role for fault in FAULTS if fault.action is Action.stall} == set(Role)
    assert MOMENTS.keys() == set(Phase)
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)


def test_the_run_saves_on_a_sync_and_inside_intervals():
    plan = schedule()
    versions = range(1, plan.num_steps + 1)
    saved = [version for version in versions if plan.saves_at(version)]
    assert [plan.syncs_at(version) for version in saved] == [False, False, True]


def test_a_fault_travels_as_text():
    assert all(as_fault(as_text(fault)) == fault for fault in (*FAULTS, None))


@pytest.fixture
def victim():
    """A process that does nothing."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield process
    process.kill()
    process.wait()


def striker(tmp_path, fault, victim, *, role=None):
    """Of the process that sees the moment of `fault`, where `victim` has the fault's role."""
    made = Striker(role or fault.moment.watcher, tmp_path, fault)
    (tmp_path / f"{fault.role.replace(' ', '-')}.pid").write_text(str(victim.pid))
    return made


def test_it_strikes_the_role_at_the_moment_and_never_again(tmp_path, victim):
    fault = Fault(Role.engine, Phase.forward, Action.stall)
    moment = fault.moment
    watching = striker(tmp_path, fault, victim)
    for _ in range(moment.nth - 1):
        watching.note(moment.event)
        watching.note("another")
    assert not (tmp_path / MARKER).exists()
    watching.note(moment.event)
    assert json.loads((tmp_path / MARKER).read_text())["pid"] == victim.pid
    os.waitid(os.P_PID, victim.pid, os.WSTOPPED)
    victim.send_signal(signal.SIGCONT)
    for _ in range(2 * moment.nth):  # as many as a run that goes back to the start would note
        watching.note(moment.event)
    victim.terminate()
    assert victim.wait(10) == -signal.SIGTERM  # which one that is stopped does not heed


def test_it_waits_for_a_victim_that_is_not_there(tmp_path, victim):
    fault = Fault(Role.engine, Phase.forward, Action.kill)
    watching = striker(tmp_path, fault, victim)
    (tmp_path / "engine-0.pid").unlink()
    for _ in range(fault.moment.nth):
        watching.note(fault.moment.event)
    assert not (tmp_path / MARKER).exists()
    (tmp_path / "engine-0.pid").write_text(str(victim.pid))
    watching.note(fault.moment.event)
    assert victim.wait(10) == -signal.SIGKILL


def test_others_than_the_watcher_do_not_strike(tmp_path, victim):
    fault = Fault(Role.engine, Phase.forward, Action.kill)
    watching = striker(tmp_path, fault, victim, role=Role.policy_1)
    for _ in range(fault.moment.nth):
        watching.note(fault.moment.event)
    assert not (tmp_path / MARKER).exists()


def test_a_process_below_another_is_found(tmp_path):
    Striker(Role.driver, tmp_path, None)
    assert int((tmp_path / "controller.pid").read_text()) == os.getpid()
    assert find(Role.verifier, tmp_path) is None
    command = [sys.executable, "-c", "import time; time.sleep(60)", "rlstack.rewards.math_worker"]
    with subprocess.Popen(command) as worker:
        try:
            assert find(Role.verifier, tmp_path).pid == worker.pid
        finally:
            worker.kill()


def test_the_uses_of_a_watched_objects_methods_are_noted():
    noted = []

    class Noting:
        note = staticmethod(noted.append)

    watched = Watched([3, 1], Noting())
    watched.sort()
    assert watched.pop() == 3
    assert noted == ["sort()", "pop()"]
