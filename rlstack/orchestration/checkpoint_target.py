"""Which checkpoint `rlstack export` is to take, and whose settings and tokenizer go with it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from rlstack.checkpoint.manifest import MANIFEST, check
from rlstack.checkpoint.store import CheckpointStore
from rlstack.config.load import load_stored
from rlstack.config.schema import Checkpoint
from rlstack.errors import ConfigError
from rlstack.telemetry.run_dir import CHECKPOINTS, CONFIG


class CheckpointTarget(NamedTuple):
    checkpoint: Path
    model: Path  # a Hugging Face folder


def find_checkpoint(
    target: Path, out: Path, *, step: int | None, best: bool, model: Path | None
) -> CheckpointTarget:
    """Of the run, or the checkpoint, in the folder `target`; each file has the digest that was written.

    Raises ConfigError if there is none, if it is damaged, or if it cannot be told which is meant.
    """
    _check_out(out)
    is_checkpoint = (target / MANIFEST).is_file()
    if step is not None and best:
        raise ConfigError(f"--step {step} --best: one of them is accepted; leave the other out")
    if is_checkpoint and (step is not None or best):
        raise ConfigError(
            f"RUN = {target}: is one checkpoint, of which --step or --best choose none; give the run"
        )
    run = target.resolve().parents[1] if is_checkpoint else target
    source = model or _model_of(run)
    if is_checkpoint:
        check(target)
        return CheckpointTarget(target, source)
    store = CheckpointStore(run / CHECKPOINTS, Checkpoint())
    if step is not None:
        return CheckpointTarget(store.of_step(step), source)
    chosen = store.best() if best else store.newest()
    if chosen is None:
        wanted = "a whole checkpoint with an evaluation" if best else "a whole checkpoint"
        raise ConfigError(f"RUN = {target}: {run / CHECKPOINTS} has not {wanted}; {_remedy(best)}")
    return CheckpointTarget(chosen, source)


def _check_out(out: Path) -> None:
    """Raise ConfigError if `out` is there, or cannot be made."""
    if os.path.lexists(out):
        raise ConfigError(f"OUT = {out}: is there already; remove it, or give another folder")
    there = next(path for path in out.absolute().parents if os.path.lexists(path))
    if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
        raise ConfigError(f"OUT = {out}: {there} is no folder to write to; give another folder")


def _remedy(best: bool) -> str:
    return "leave --best out, or give --step" if best else "give a run with schedule.save_every"


def _model_of(run: Path) -> Path:
    """The run's policy.model."""
    settings = run / CONFIG
    if not settings.is_file():
        raise ConfigError(
            f"RUN = {run}: has no {CONFIG}, so it is no run; give the folder of one, or --model"
        )
    model = Path(load_stored(settings).policy.model)
    if not (model / "config.json").is_file():
        raise ConfigError(
            f"{settings}: policy.model = {model} is not there any more; give a folder with its config.json "
            "and tokenizer as --model"
        )
    return model
