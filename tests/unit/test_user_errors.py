"""An exception of the user's own code, or the same one twice at a step, ends the run with its place first."""

from __future__ import annotations

import json
import pickle
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch.distributed import FileStore, TCPStore

from rlstack.cli.exit_status import exit_status
from rlstack.config.schema import Objective, Policy, RunConfig
from rlstack.errors import UserCodeError
from rlstack.losses.build import build_loss
from rlstack.losses.types import LossOutput
from rlstack.orchestration.home import Home
from rlstack.orchestration.restarts import Restarts
from rlstack.orchestration.roles import EngineLost, OlderVersionLost, Role, RoleError, UserCodeFailed, _failed
from rlstack.telemetry.alarms import StoppedByAlarm
from rlstack.telemetry.recorder import Recorder
from rlstack.user_code import Place, in_one_line, is_users, place_in_dump, place_of

HERE = str(Path(__file__))
ROLE = cast(
    Role,
    SimpleNamespace(
        name="engine 0", title="engine 0", log="/runs/a/logs/engine-0.log", lost=EngineLost, home=Home()
    ),
)


class Buggy:
    needs_reference = needs_entropy_gradient = False

    def __call__(self, inputs: Any) -> Any:
        return inputs.no_such_field


class Wrong(Buggy):
    def __call__(self, inputs: Any) -> Any:
        return torch.zeros(())


def raised(loss: Any) -> UserCodeError:
    with pytest.raises(UserCodeError) as error:
        build_loss(Objective(loss="x:y"), loss)(cast(Any, object()))
    return error.value


def test_what_a_loss_raises_begins_with_its_file_and_line() -> None:
    error = raised(Buggy())
    line = Buggy.__call__.__code__.co_firstlineno + 1
    assert (error.file, error.line) == (HERE, line)
    assert str(error) == f"{HERE}:{line}: AttributeError: 'object' object has no attribute 'no_such_field'"
    assert isinstance(error.__cause__, AttributeError)
    there = pickle.loads(pickle.dumps(error))  # as it comes from a rank
    assert (str(there), there.file, there.line) == (str(error), error.file, error.line)


def test_what_a_loss_returns_is_a_loss_output() -> None:
    assert "a loss returns a LossOutput, and this has returned Tensor" in str(raised(Wrong()))
    right = LossOutput(loss=torch.zeros(()))

    class Right(Buggy):
        def __call__(self, inputs: Any) -> Any:
            return right

    assert build_loss(Objective(loss="x:y"), Right())(cast(Any, None)) is right


def test_code_is_the_users_unless_it_is_installed_or_rlstacks(tmp_path: Path) -> None:
    assert is_users(HERE) and is_users(str(tmp_path / "my.py")) and is_users("<stdin>")
    assert not any(map(is_users, (json.__file__, torch.__file__, pickle.__file__, "<frozen importlib>")))
    assert not is_users(str(Path(build_loss.__code__.co_filename)))
    with pytest.raises(ValueError) as error:
        json.loads("{")  # raised in the standard library, called from here
    assert place_of(error.value) == Place(HERE, error.traceback[0].lineno + 1)
    assert in_one_line(error.value).startswith(f"{HERE}:{error.traceback[0].lineno + 1}: JSONDecodeError: ")
    dump = f'Current thread 0x1:\n  File "{json.__file__}", line 7 in f\n  File "/u/a.py", line 3'
    assert place_in_dump(dump) == Place("/u/a.py", 3)


def test_the_users_exception_in_a_role_is_no_lost_process() -> None:
    error = _failed(ROLE, UserCodeError("/u/a.py:3: KeyError: 'x'", file="/u/a.py", line=3), "training", "")
    assert type(error) is UserCodeFailed and isinstance(error, RoleError)
    assert str(error).splitlines() == ["/u/a.py:3: KeyError: 'x'", "  in engine 0, training"]


def lost(cause: Exception) -> EngineLost:
    error = _failed(ROLE, cause, "sampling rollouts", "")
    assert isinstance(error, EngineLost)
    return error


def test_the_same_exception_twice_at_a_step_ends_the_run() -> None:
    step = [4]
    restarts = Restarts(9, step=lambda: step[0])
    first = lost(IndexError("index out of range in self"))
    with restarts.replacing(first):
        pass
    with restarts.replacing(lost(IndexError("another one"))):
        pass
    step[0] = 5
    with restarts.replacing(OlderVersionLost(str(first), role=ROLE, exception=first.exception)):
        pass
    with (
        pytest.raises(
            RoleError, match=r"engine 0 failed: index out of range in self .* after step 5"
        ) as again,
        restarts.replacing(lost(IndexError("index out of range in self"))),
    ):
        pytest.fail("it was replaced")
    assert type(again.value) is RoleError  # so that nobody replaces it after all


def test_a_process_that_is_lost_again_and_again_is_replaced_each_time() -> None:
    restarts = Restarts(9)
    died = EngineLost("sampling rollouts: engine 0 died", role=ROLE)
    without_worker = lost(RuntimeError("EngineDeadError: see above"))
    for error in (died, died, without_worker, without_worker):
        with restarts.replacing(error):
            pass


def test_who_waits_in_vain_for_another_process_is_replaced_each_time(tmp_path: Path) -> None:
    restarts, waited = Restarts(9), []
    stores = (
        FileStore(str(tmp_path / "store"), 2),
        TCPStore("127.0.0.1", 0, 1, True, wait_for_workers=False),
    )
    for store in stores:
        with pytest.raises(RuntimeError) as late:
            store.wait(["nobody"], timedelta(milliseconds=10))
        waited.append(late.value)
    waited.append(RuntimeError("[pair.cc:553] Connection closed by peer [127.0.0.1]:37291"))
    waited.append(RuntimeError("Application timeout caused pair closure"))
    for error in [*waited, *waited]:
        with restarts.replacing(lost(error)):
            pass


def fails(folder: Path, error: BaseException) -> tuple[dict[str, Any], str]:
    """summary.json and report.html of a run that `error` ends before its first step."""
    config = RunConfig(policy=Policy(model="/model"))
    config.run.dir = str(folder)
    with pytest.raises(type(error)), Recorder(config):
        raise error
    page = (folder / "run" / "report.html").read_text(encoding="utf-8")
    return json.loads((folder / "run" / "summary.json").read_text(encoding="utf-8")), page


def test_a_failed_run_says_why_and_where(tmp_path: Path) -> None:
    error = UserCodeFailed("/u/<b>.py:3: KeyError: '</pre>'\n  in policy rank 1", file="/u/<b>.py", line=3)
    summary, page = fails(tmp_path, error)
    assert summary["status"] == "failed"
    assert summary["error"] == {
        "type": "UserCodeFailed",
        "message": "/u/<b>.py:3: KeyError: '</pre>'\n  in policy rank 1",
        "file": "/u/<b>.py",
        "line": 3,
        "log": "logs/error.log",
    }
    assert (tmp_path / "run" / summary["error"]["log"]).is_file()
    assert page.index('id="error"') < page.index('id="outcome"')
    assert "/u/&lt;b&gt;.py:3: KeyError: &#x27;&lt;/pre&gt;&#x27;" in page and "<b>.py" not in page
    assert "logs/error.log" in page


def test_an_alarm_is_told_without_a_traceback_and_an_interrupt_is_no_error(tmp_path: Path) -> None:
    summary, page = fails(tmp_path / "stopped", StoppedByAlarm("no reward"))
    assert summary["error"] == {
        "type": "StoppedByAlarm",
        "message": "no reward",
        "file": None,
        "line": None,
        "log": None,
    }
    assert "no reward" in page
    summary, page = fails(tmp_path / "interrupted", KeyboardInterrupt())
    assert (summary["status"], summary["error"]) == ("interrupted", None)
    assert 'id="error"' not in page


def test_the_terminal_shows_the_users_line_first(capsys: pytest.CaptureFixture[str]) -> None:
    import typer

    error = UserCodeFailed("/u/a.py:3: KeyError: 'x'\n  in policy rank 1, training")
    error.add_note("the traceback is in logs/error.log")
    with pytest.raises(typer.Exit) as ended, exit_status():
        raise error
    assert ended.value.exit_code == 1
    assert capsys.readouterr().err.splitlines() == [
        "error: /u/a.py:3: KeyError: 'x'",
        "  in policy rank 1, training",
        "the traceback is in logs/error.log",
    ]
