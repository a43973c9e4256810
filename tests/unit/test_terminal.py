"""Text of files, answers and other processes on the terminal: none of it moves the cursor."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import typer

from rlstack.cli.exit_status import exit_status
from rlstack.config.load import load_config
from rlstack.config.validate import setting_problems
from rlstack.errors import ConfigError, DiskError, for_terminal
from rlstack.rewards.plugin_worker import reply_of
from rlstack.telemetry.console import Console
from rlstack.tuning.training_process import last_words

ROOT = Path(__file__).parents[2]
TITLE = "\x1b]0;owned\x07 \x9b2J \u202e\r"
SHOWN = "\\x1b]0;owned\\x07 \\x9b2J \\u202e\\r"


class Panic(BaseException):
    """As libraries in Rust raise."""


def noted(error: Exception) -> Exception:
    error.add_note(f"a note {TITLE}")
    return error


def test_what_is_not_printable_is_escaped_ends_of_lines_aside() -> None:
    assert for_terminal(f"a\tb\n{TITLE}caf\u00e9\ud800") == f"a\\tb\n{SHOWN}caf\u00e9\\ud800"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ConfigError(TITLE), 2),
        (DiskError(TITLE), 1),
        (RuntimeError(TITLE), 1),
        (noted(RuntimeError(TITLE)), 1),
        (Panic(TITLE), 1),
        (MemoryError(TITLE), 1),
    ],
)
def test_an_error_ends_a_command_without_moving_the_cursor(
    error: BaseException, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as ended, exit_status():
        raise error
    shown = capsys.readouterr().err
    assert ended.value.exit_code == status
    assert SHOWN in shown and all(each.isprintable() or each == "\n" for each in shown)


def test_the_status_that_a_command_chooses_is_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as ended, exit_status():
        raise typer.Exit(7)
    assert ended.value.exit_code == 7 and capsys.readouterr().err == ""


def test_notes_and_last_words_of_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Console(0).note(TITLE)
    assert capsys.readouterr().out == f"{SHOWN}\n"
    (tmp_path / "log").write_text("error: \x1b[2J\n")
    assert last_words(tmp_path / "log") == "\\x1b[2J"


def test_what_a_plug_in_raises_on_an_answer() -> None:
    def raises(problem: str, answer: str | None, responses: list[str]) -> list[float]:
        raise ValueError(responses[0])

    assert "\\x1b]0;owned" in reply_of(raises, "", None, [TITLE])["error"]


def test_warnings_of_a_command() -> None:
    code = f"import logging, rlstack.cli as c; c._show_any_text(); logging.getLogger('x').warning({TITLE!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == f"{SHOWN}\n"


def test_the_name_of_a_task_is_printable() -> None:
    config = load_config(ROOT / "configs" / "quickstart.yaml")
    config.evaluation.tasks[0].name = "a\x1b[2J"
    (only,) = setting_problems(config)
    assert only.startswith("evaluation.tasks[0].name = 'a\\x1b[2J': a name without control characters")
