"""Which checkpoint is exported, and whose settings go with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlstack.checkpoint.store import CheckpointStore
from rlstack.config.schema import Checkpoint
from rlstack.errors import ConfigError
from rlstack.orchestration.checkpoint_target import find_checkpoint

ASKED = {"step": None, "best": False, "model": None}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with checkpoints of steps 5, the best, and 10."""
    folder = tmp_path / "run"
    store = CheckpointStore(folder / "checkpoints", Checkpoint())
    for step, selection in ((5, 0.9), (10, 0.2)):
        (store.draft(step) / "run.json").write_text("{}")
        store.commit(step, selection)
    (folder / "config.yaml").write_text("policy: {model: ../model}\n")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    return folder


@pytest.mark.parametrize(
    ("asked", "step"), [({}, 10), ({"best": True}, 5), ({"step": 5}, 5), ({"step": 10}, 10)]
)
def test_takes_the_newest_unless_another_is_asked_for(run: Path, asked: dict, step: int) -> None:
    found = find_checkpoint(run, run / "out", **ASKED | asked)
    assert found.checkpoint == run / "checkpoints" / f"step-{step:08d}"
    assert found.model.resolve() == run.parent / "model"


def test_takes_one_checkpoint_by_its_folder(run: Path) -> None:
    checkpoint = run / "checkpoints" / "step-00000005"
    found = find_checkpoint(checkpoint, run / "out", **ASKED)
    assert (found.checkpoint, found.model.resolve()) == (checkpoint, run.parent / "model")
    other = run.parent / "elsewhere"
    assert find_checkpoint(checkpoint, run / "out", **ASKED | {"model": other}).model == other
    (checkpoint / "run.json").write_text("changed")
    with pytest.raises(ConfigError, match=r"run\.json: "):
        find_checkpoint(checkpoint, run / "out", **ASKED)


@pytest.mark.parametrize(
    ("target", "out", "asked", "message"),
    [
        ("", "config.yaml", {}, "OUT = .*is there already"),
        ("", "out", {"step": 5, "best": True}, "one of them is accepted"),
        ("", "out", {"step": 7}, "there are: 5, 10"),
        ("checkpoints/step-00000005", "out", {"best": True}, "is one checkpoint"),
        ("checkpoints", "out", {}, "so it is no run"),
    ],
)
def test_says_what_cannot_be_meant(run: Path, target: str, out: str, asked: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        find_checkpoint(run / target, run / out, **ASKED | asked)


def test_says_so_if_nothing_was_saved_or_the_model_has_gone(run: Path) -> None:
    (run.parent / "model" / "config.json").unlink()
    with pytest.raises(ConfigError, match="as --model"):
        find_checkpoint(run, run / "out", **ASKED)
    empty = run.parent / "empty"
    empty.mkdir()
    (empty / "config.yaml").write_text("policy: {model: ../model}\n")
    with pytest.raises(ConfigError, match=r"schedule\.save_every"):
        find_checkpoint(empty, run / "out", **ASKED | {"model": run})
    with pytest.raises(ConfigError, match="leave --best out"):
        find_checkpoint(empty, run / "out", **ASKED | {"model": run, "best": True})
