"""The last words on an error come, whatever has led to it."""

from __future__ import annotations

import errno
from pathlib import Path

from rlstack.telemetry.closing import explain


def test_errors_that_lead_to_each_other_are_explained_once(tmp_path: Path) -> None:
    error, other = RuntimeError("engine 0 failed"), OSError(errno.ENOSPC, "No space left on device")
    error.__cause__, other.__cause__ = other, error
    explain(error, tmp_path)
    assert [note.partition(" ")[0] for note in error.__notes__[1:]] == ["the"]
    assert "and go on as above" in error.__notes__[0]


def test_an_error_that_is_its_own_cause_is_explained(tmp_path: Path) -> None:
    error = RuntimeError("engine 0 failed")
    error.__cause__ = error
    explain(error, tmp_path)
    (note,) = error.__notes__
    assert note == f"the traceback is in {tmp_path / 'error.log'}"
