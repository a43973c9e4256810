"""Folders for temporary files: nobody else's, gone at the end, and found if their process was killed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rlstack.files import PRIVATE_EXAMPLE, left_folders, private_folder
from tests.unprivileged import as_neighbour

ENTER = """
for folder in sys.argv[1:]:
    for attempt in (os.listdir, os.chdir, lambda path: os.open(path + "/planted", os.O_CREAT | os.O_WRONLY)):
        try:
            attempt(folder)
        except PermissionError:
            print("refused")
"""
KEEP = """
import sys, time
from rlstack.files import private_folder
with private_folder(sys.argv[1]):
    print("made", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder for everyone's temporary files, as /tmp is, and so are those above it."""
    path = tmp_path / "tmp"
    path.mkdir()
    path.chmod(0o1777)
    return path


def test_a_neighbour_gets_in_neither_to_it_nor_to_what_is_open_within(place: Path) -> None:
    for above in (place.parent, place.parent.parent, place.parent.parent.parent):
        above.chmod(above.stat().st_mode | 0o011)  # pytest's own folders let nobody through
    with private_folder(str(place)) as folder:
        (folder / "r").mkdir()
        (folder / "r").chmod(0o777)
        found = as_neighbour(ENTER, str(folder), str(folder / "r"), imports="import sys")
        assert (found.stdout, found.stderr) == ("refused\n" * 6, "")
        assert not list(folder.rglob("planted"))


def test_it_goes_whatever_ends_the_context(place: Path) -> None:
    with private_folder(str(place)) as folder:
        (folder / "file").touch()
        assert len(folder.name) == len(PRIVATE_EXAMPLE)
        assert left_folders(str(place)) == []
    assert list(place.iterdir()) == []
    with pytest.raises(KeyboardInterrupt), private_folder(str(place)):
        raise KeyboardInterrupt
    assert list(place.iterdir()) == []


def test_that_of_a_killed_process_is_found_and_nobody_elses(place: Path) -> None:
    (place / "rl-projects").mkdir()
    (place / "rl-12345678").touch()
    (place / "rl-abcdefgh").mkdir(mode=0o755)
    command = [sys.executable, "-c", KEEP, str(place)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "made\n"
        assert left_folders(str(place)) == []
        process.kill()
    (left,) = left_folders(str(place))
    assert left.stat().st_mode & 0o777 == 0o700
