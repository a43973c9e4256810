"""Cases of `rlstack score`: the math verdicts as one file, commands of their own one by one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from typer.testing import CliRunner

from rlstack.cli import app
from tests.cases.case import ROOT, Case, Outcome

WORKERS = 2  # of the verifier
PLUGINS = """def length(problem, answer, responses):
    return [len(response) for response in responses]


def none(problem, answer, responses):
    return [None for _ in responses]


def later(problem, answer, responses):
    import pathlib
    import time

    pathlib.Path("started").touch()
    time.sleep(0.05)
    return [1.0 for _ in responses]
"""


def math_verdicts(cases: Sequence[Case]) -> list[Outcome]:
    """The rewards of each case's row, from one call of `rlstack score` for all as long as none is refused.

    A file is refused for its first bad row: it is then split in two until the bad rows stand alone.
    """
    with tempfile.TemporaryDirectory() as folder:
        done = _score([case.input["row"] for case in cases], Path(folder), "--reward", "math")
    if "rewards" in done:
        rows = zip(done["rewards"], done["outcomes"], strict=True)
        return [{"rewards": rewards, "outcomes": outcomes} for rewards, outcomes in rows]
    if len(cases) == 1:
        return [{"error": done["output"]}]
    half = len(cases) // 2
    return math_verdicts(cases[:half]) + math_verdicts(cases[half:])


def score_command(case: Case) -> Outcome:
    """A call of its own: exit status, what it prints, and OUT's rewards and outcomes, if it was written."""
    given = case.input
    rows = given.get("rows") or [given["row"]]
    reward = "mine:length" if "plug:length" in case.how else given.get("reward", "math")
    with tempfile.TemporaryDirectory() as folder:
        return _score(rows, Path(folder), "--reward", reward, *given.get("arguments", ()))


def without_rewards(case: Case) -> Outcome:
    """A plug-in that returns None for every answer."""
    row = {"problem": "a", "answer": "1", "responses": ["1", "2"]}
    with tempfile.TemporaryDirectory() as folder:
        return _score([row], Path(folder), "--reward", "mine:none")


def folder_as_out(case: Case) -> Outcome:
    """OUT is a folder, and the plug-in leaves a mark when it is called."""
    row = {"problem": "a", "answer": "1", "responses": ["1"]}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "out.jsonl").mkdir()
        done = _score([row], folder, "--reward", "mine:later")
        return done | {"started": (folder / "started").exists()}


def plain_terminal(case: Case) -> Outcome:
    """A terminal that shows ASCII only."""
    with tempfile.TemporaryDirectory() as name:
        _write([case.input["row"]], Path(name))
        done = _process(Path(name), "math", env={"PYTHONIOENCODING": "ascii"}, stdout=subprocess.PIPE)
        output = done.stdout.read() + done.stderr.read()
        return {"exit_code": done.wait(), "output": output, **_read(Path(name))}


def closed_terminal(case: Case) -> Outcome:
    """Nobody reads what is printed; then the same call once more."""
    row = {"problem": "a", "answer": "1", "responses": ["1", "2"]}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write([row] * 4, folder)
        first = _process(folder, "mine:length", env={}, stdout=subprocess.PIPE)
        first.stdout.close()
        first.communicate()
        kept = _read(folder)
        second = _process(folder, "mine:length", env={}, stdout=subprocess.DEVNULL)
        second.communicate()
        return {"kept": kept, "exit_code": second.returncode, **_read(folder)}


def _score(rows: Sequence[object], folder: Path, *arguments: str) -> Outcome:
    _write(rows, folder)
    here = os.getcwd()
    os.chdir(folder)
    try:
        command = ["score", "rows.jsonl", "--out", "out.jsonl", "--config", "run.yaml", *arguments]
        done = CliRunner().invoke(app, command)
    finally:
        os.chdir(here)
    return {"exit_code": done.exit_code, "output": done.output, **_read(folder)}


def _write(rows: Sequence[object], folder: Path) -> None:
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    (folder / "run.yaml").write_text(f"policy: {{model: none}}\nreward: {{workers: {WORKERS}}}\n")
    (folder / "mine.py").write_text(PLUGINS)


def _read(folder: Path) -> Outcome:
    out = folder / "out.jsonl"
    if not out.is_file():
        return {}
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    return {"rewards": [row["rewards"] for row in rows], "outcomes": [row["outcomes"] for row in rows]}


def _process(folder: Path, reward: str, *, env: dict[str, str], stdout: int) -> subprocess.Popen[str]:
    main = "import sys; from rlstack.cli import main; sys.exit(main())"
    command = ["score", "rows.jsonl", "--reward", reward, "--out", "out.jsonl", "--config", "run.yaml"]
    return subprocess.Popen(
        [sys.executable, "-c", main, *command],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(folder)])} | env,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
    )
