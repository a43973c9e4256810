"""The first how-tos work as pasted: files are made as they say, commands run in order in one folder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.markdown import ROOT, tokens

PAGES = ("own-dataset", "own-reward", "own-model")
NAMED = re.compile(r"\bAs `([\w.-]+)`")  # the file that the block below is


def pasted(page: Path) -> Iterator[tuple[str | None, str]]:
    """Each block to paste: with the name of the file that it is, None for commands."""
    name = None
    for token in tokens(page):
        if token.type == "inline":
            found = NAMED.search(token.content)
            name = found[1] if found else None
        elif token.type == "fence":
            language = token.info.split(" ")[0]
            if language == "bash" or (language and name):
                yield (None if language == "bash" else name), token.content


@pytest.mark.slow
@pytest.mark.thorough
def test_how_tos_work_as_pasted(tmp_path: Path) -> None:
    for folder in ("configs", "tools"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    for page in PAGES:
        for name, text in pasted(ROOT / "docs" / "how-to" / f"{page}.md"):
            if name is not None:
                (tmp_path / name).write_text(text)
                continue
            command = ["bash", "-e", "-c", text]
            done = subprocess.run(
                command,
                cwd=tmp_path,
                env=os.environ | {"PATH": path},
                capture_output=True,
                text=True,
                timeout=900,
            )
            assert done.returncode == 0, f"{page}: {text}\n{done.stdout}\n{done.stderr}"
    left = {folder.name for folder in (tmp_path / "runs").iterdir()}
    assert left == {"my-data", "held-out", "my-reward", "my-model"}
    assert (tmp_path / "exported" / "model.safetensors").is_file()
