"""What becomes of roles, told apart where the driver waits for them, and their certain end. No models."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from rlstack.config.schema import Cluster as ClusterSettings
from rlstack.config.schema import RunConfig
from rlstack.errors import ConfigError
from rlstack.orchestration.cluster import Cluster
from rlstack.orchestration.role_host import phase
from rlstack.orchestration.roles import (
    Call,
    EngineLost,
    PolicyLost,
    Role,
    RoleError,
    RoleLost,
    silent_or_dead,
    wait_for,
)
from rlstack.telemetry import clocks, timeline
from rlstack.transfer.errors import TransferError

pytestmark = pytest.mark.slow


ROOT = Path(__file__).resolve().parents[2]
EVERYONE = "0.0.0.0"


class Foreign(Exception):
    """Of a library that the driver does not import, as far as the role knows."""


class Worker:
    """Does as it is told."""

    def __init__(self) -> None:
        self.children: list[subprocess.Popen[bytes]] = []

    def start_child(self) -> int:
        self.children.append(subprocess.Popen(["sleep", "600"]))
        return self.children[-1].pid

    @phase("start_up", opens_connections=True)
    def start(self) -> None:
        """As a role whose first call opens its connections, which its child then keeps."""
        with socket.create_server((EVERYONE, 0)) as listener:
            self.children.append(subprocess.Popen(["sleep", "600"], pass_fds=[listener.fileno()]))

    @phase("sync")
    def sleep(self, seconds: float) -> str:
        time.sleep(seconds)
        return "slept"

    def fail(self, kind: str) -> None:
        raise {"foreign": Foreign, "transfer": TransferError, "config": ConfigError}[kind]("no luck")

    def die(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


def build_worker() -> Worker:
    return Worker()


def build_ahead() -> Worker:
    """As on a node whose clock is an hour ahead."""
    timeline._EPOCH_S += 3600.0
    return Worker()


class Listener(Worker):
    def __init__(self) -> None:
        super().__init__()
        self.socket = socket.create_server((EVERYONE, 0))


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("logs")
    settings = RunConfig(cluster=ClusterSettings(object_store_mib=100))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))  # roles import this file by name
        with Cluster(settings, folder):
            yield folder


def build_nothing() -> Worker:
    raise ValueError("5.62 GiB KV cache is needed, which is larger than the available\nand more")


def build_refused() -> Worker:
    raise ConfigError("`import vllm` finds vllm/__init__.py")


def start(logs: Path, name: str, lost: type[RoleLost] = EngineLost) -> Role[Worker]:
    return Role(name, log=logs / f"{name}.log", build=build_worker, beside=True, lost=lost)


def wait(calls: Sequence[Call[Any]], timeout_s: float = 120.0) -> list[Any]:
    return wait_for(calls, timeout_s=timeout_s, doing="trying", setting="try.timeout_s")


def test_a_failure_is_a_loss_unless_it_would_happen_again(logs: Path) -> None:
    role = start(logs, "failing")
    with pytest.raises(EngineLost, match=r"trying: failing failed: .*no luck\n.*failing\.log") as lost:
        wait([role.start(Worker.fail, "foreign")])
    assert lost.value.role is role and not lost.value.is_late
    for kind in ("transfer", "config"):
        with pytest.raises(RoleError, match="failing failed: no luck") as error:
            wait([role.start(Worker.fail, kind)])
        assert not isinstance(error.value, RoleLost)
    assert wait([role.start(Worker.sleep, 0.0)]) == ["slept"]
    role.kill()


@pytest.mark.parametrize(
    ("build", "kind", "says"),
    [
        (build_nothing, EngineLost, "5.62 GiB KV cache is needed"),
        (build_refused, RoleError, "finds vllm"),
    ],
)
def test_a_role_that_cannot_be_built_says_why(logs: Path, build: Any, kind: Any, says: str) -> None:
    role = Role("broken", log=logs / "broken.log", build=build, lost=EngineLost)
    with pytest.raises(kind, match=f"trying: broken failed: .*{says}") as error:
        wait([role.start(Worker.sleep, 0.0)])
    assert isinstance(error.value, RoleLost) == (kind is EngineLost)
    assert says in (logs / "broken.log").read_text()
    role.kill()


@pytest.mark.parametrize(("build", "process"), [(Listener, r"ray.*"), (build_worker, "sleep")])
def test_a_role_that_other_machines_could_connect_to_ends_the_run(
    logs: Path, build: Any, process: str
) -> None:
    role = Role(f"open {process}", log=logs / "open.log", build=build, lost=EngineLost)
    says = rf"process \d+ \({process}\) listens on 0\.0\.0\.0, port \d+, where other machines can connect"
    with pytest.raises(RoleError, match=says) as error:
        wait([role.start(Worker.start)])
    assert not isinstance(error.value, RoleLost)  # for another in its place would do the same
    role.kill()


def test_who_has_died_is_blamed_not_who_noticed_it_first(logs: Path) -> None:
    rank, noticing = start(logs, "rank", PolicyLost), start(logs, "noticing")
    wait([role.start(Worker.sleep, 0.0) for role in (rank, noticing)])
    with pytest.raises(PolicyLost, match="trying: rank died"):
        wait([noticing.start(Worker.fail, "transfer"), rank.start(Worker.die)])
    noticing.kill()


def test_one_that_is_late_is_named_with_the_setting(logs: Path) -> None:
    late, prompt = start(logs, "late"), start(logs, "prompt")
    wait([role.start(Worker.sleep, 0.0) for role in (late, prompt)])
    calls = [role.start(Worker.sleep, seconds) for role, seconds in ((late, 600.0), (prompt, 0.0))]
    with pytest.raises(EngineLost, match=r"no answer from late within 1 s \(try\.timeout_s\)") as lost:
        wait(calls, timeout_s=1.0)
    assert lost.value.role is late and lost.value.is_late
    limit = {"doing": "giving up", "within": "the time left"}
    silent = silent_or_dead(calls, timeout_s=0.5, **limit)
    assert silent is not None and silent.role is late
    assert str(silent) == "giving up: no answer from late within the time left"
    assert silent_or_dead([prompt.start(Worker.fail, "transfer")], timeout_s=120.0, **limit) is None
    late.kill()
    with pytest.raises(EngineLost, match="late died"):
        wait(calls)
    prompt.kill()


def test_what_a_role_did_is_on_the_drivers_clock(logs: Path) -> None:
    clocks.forget()
    timeline.take()
    role = Role("ahead", log=logs / "ahead.log", build=build_ahead, lost=EngineLost)
    begun_s = timeline.now_s()
    wait([role.start(Worker.sleep, 0.5)])
    clocks.settle()
    slept = next(span for span in timeline.take() if (span.role, span.phase) == ("ahead", "sync"))
    assert begun_s <= slept.start_s < slept.end_s <= timeline.now_s()
    (offset_s,) = clocks.offsets().values()
    assert 3590.0 < offset_s < 3600.1
    role.kill()


@pytest.mark.parametrize("state", ["running", "stopped", "dead"])
def test_killing_a_role_ends_what_it_has_started(logs: Path, state: str) -> None:
    role = start(logs, f"parent {state}")
    child = psutil.Process(*wait([role.start(Worker.start_child)]))
    role.note_processes()
    parent = psutil.Process(role.pid())
    assert child.ppid() == parent.pid
    for process in (parent, child) if state == "stopped" else ():
        process.suspend()
    if state == "dead":
        parent.kill()
    role.kill()
    for process in (parent, child):
        assert not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
