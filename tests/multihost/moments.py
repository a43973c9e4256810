"""Moments at which a run on hosts stands still, in the role that comes to it, until the test goes on.

The product has no hook for this: as in tests/faults, the builders of the roles are replaced by ones that note
spans and calls. Where they meet is a folder that all hosts share.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlstack.orchestration import engine_group, policy_group
from tests.faults import roles, strike
from tests.faults.faults import MOMENTS, Fault, Moment, Phase, Role
from tests.multihost.hosts import ROOT, SHARED, address

FOLDER = SHARED / "moments"
WATCHED = {"PYTHONPATH": str(ROOT), strike.FOLDER: str(FOLDER)}  # the environment of Ray and of the driver
LIST = "moments.json"
HOLD_S = 60.0  # after which a role goes on by itself
REACH_S = 300.0

# Those of a run with the settings of tests/faults: after the first save, and inside an interval.
STARTING = Moment(Role.engine, "start", 1)
GENERATING = MOMENTS[Phase.generating]
SYNCING = MOMENTS[Phase.sync_begins]
SAVING = MOMENTS[Phase.writing]


class Holder(strike.Striker):
    """Holds its process at the moments of the list, each once, whatever is replaced."""

    def __init__(self, role: Role, folder: Path, fault: Fault | None) -> None:
        super().__init__(role, folder, fault)
        listed = json.loads((folder / LIST).read_text(encoding="utf-8"))
        moments = [Moment(Role(watcher), event, nth) for watcher, event, nth in listed]
        self._own = {i: moment for i, moment in enumerate(moments) if moment.watcher is role}
        self._counts = dict.fromkeys(self._own, 0)
        self.note("start")

    def note(self, event: str) -> None:
        for i, moment in self._own.items():
            if event == moment.event:
                self._counts[i] += 1
                if self._counts[i] >= moment.nth:
                    self._hold(i)

    def _hold(self, i: int) -> None:
        try:
            _reached(self._folder, i).touch(exist_ok=False)
        except FileExistsError:
            return
        end = time.monotonic() + HOLD_S
        while not _passed(self._folder, i).exists() and time.monotonic() < end:
            time.sleep(0.02)


def build_policy_worker(**kwargs: Any) -> Any:
    strike.Striker = Holder  # type: ignore[misc]
    return roles.build_policy_worker(**kwargs)


def build_engine(**kwargs: Any) -> Any:
    strike.Striker = Holder  # type: ignore[misc]
    return roles.build_engine(**kwargs)


def hold_roles() -> None:
    """Have the roles that this process, a driver, starts built by the functions above."""
    policy_group.build_policy_worker = build_policy_worker
    engine_group.build_engine = build_engine


def list_moments(shared: Path, moments: Sequence[Moment]) -> None:
    """Write what the next run is to be held at; shared: /tmp/shared of the hosts, as this machine has it."""
    folder = shared / FOLDER.name
    folder.mkdir()
    (folder / LIST).write_text(json.dumps(moments), encoding="utf-8")


def wait_until_reached(shared: Path, i: int, driver: subprocess.Popen[bytes]) -> None:
    """Return when the run has come to moment `i` of its list, where it stands still."""
    deadline = time.monotonic() + REACH_S
    while not _reached(shared / FOLDER.name, i).exists():
        assert driver.poll() is None and time.monotonic() < deadline, f"moment {i} was not reached"
        time.sleep(0.05)


def go_on(shared: Path, i: int) -> None:
    _passed(shared / FOLDER.name, i).touch()


def host_of(run: Path, role: Role) -> int:
    """The host on which `role` was started last."""
    log = run / "logs" / f"{role.replace('policy rank', 'policy').replace(' ', '-')}.log"
    lines = [line for line in log.read_text().splitlines() if " on node " in line]
    found = lines[-1].partition(" on node ")[2].partition(",")[0]
    return next(host for host in range(1, 10) if address(host) == found)


def _reached(folder: Path, i: int) -> Path:
    return folder / f"{i}.reached"


def _passed(folder: Path, i: int) -> Path:
    return folder / f"{i}.passed"
