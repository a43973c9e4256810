"""Where a run goes on: at its start, or at the newest of its checkpoints."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from rlstack.checkpoint.run_state import Rollouts, RunState, read_rollouts
from rlstack.checkpoint.store import CheckpointStore
from rlstack.config.load import load_stored
from rlstack.config.resume import Contents
from rlstack.config.schema import RunConfig
from rlstack.errors import CheckpointError, ConfigError, UnreadableCheckpoint
from rlstack.telemetry.curves import read_rows
from rlstack.telemetry.history import History
from rlstack.telemetry.log_files import METRICS, check_lengths, check_takes_files, is_begun
from rlstack.telemetry.run_dir import CHECKPOINTS, CONFIG, folder_of, take_over


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """From where a run goes on."""

    checkpoint: Path | None = None  # None: the start
    state: RunState = field(
        default_factory=lambda: RunState(step=0, served_version=0, reference_version=0, positions={})
    )
    rollouts: Rollouts = field(default_factory=dict)  # finished ones of steps not trained on


def newest_place(store: CheckpointStore, *, verify: Callable[[Path], object]) -> Place | None:
    """That of the newest checkpoint; None if there are none at all.

    verify: checks the policy's files of a checkpoint, which are not read here, as PolicyGroup.verify.

    Raises CheckpointError if there are some and none is whole, UnreadableCheckpoint if they cannot be read.
    """
    folder = store.newest(verify)
    if folder is None:
        return None
    return Place(checkpoint=folder, state=RunState.read(folder), rollouts=read_rollouts(folder))


def place_to_resume(
    config: RunConfig, *, inputs: Contents | None = None, note: Callable[[str], object] = print
) -> Place | None:
    """Where the run in the folder of `config` is to go on, with all its files as they are.

    inputs: see run_dir.take_over; note: as CheckpointStore takes it.

    The policy's files of the checkpoint are there, and have been read by nobody yet: see Saver.whole.

    Returns None if a run is to begin in a folder of its own: there is no earlier one, or it has logged steps
    and was broken off before its first checkpoint.

    Raises ConfigError, with a remedy, if the earlier run cannot go on with these settings; if it has
    checkpoints, or has had some, and none is whole; or if one of its files cannot be read or is too short.
    """
    lock = take_over(config, inputs=inputs)
    if lock is None:
        return None
    folder = folder_of(config)
    store = CheckpointStore(folder / CHECKPOINTS, config.checkpoint, note=note)
    try:
        check_takes_files(folder, folder / CHECKPOINTS)
        place = newest_place(store, verify=lambda folder: None)
        if place is None:
            return _beginning(folder, store)
        _check_fit(place, folder, config)
        return place
    except UnreadableCheckpoint:
        raise
    except CheckpointError as error:
        raise CheckpointError(f"{error}\n{remedy(folder)}") from None
    except OSError as error:
        raise ConfigError(f"run.name = {folder.name}: {error}; try again once it can be read") from None
    finally:
        os.close(lock)


def _beginning(folder: Path, store: CheckpointStore) -> Place | None:
    """For a run without checkpoints: its start, or None if it has logged something that is to be kept."""
    if not is_begun(folder):
        return Place()
    log, save_every = folder / METRICS, load_stored(folder / CONFIG).schedule.save_every
    if not log.exists():
        raise ConfigError(f"{log}: is missing, and other logs of the run are there; {remedy(folder)}")
    last_step = max((int(row["step"]) for row in read_rows(log)), default=0)
    # Where a draft is left, the first of them was being written until the next one was due.
    if save_every is not None and last_step > save_every * (2 if store.has_draft() else 1):
        raise ConfigError(
            f"{log}: has {last_step} steps, with a checkpoint after every {save_every}, and there is none "
            f"in {folder / CHECKPOINTS}; {remedy(folder)}"
        )
    return None


def _check_fit(place: Place, folder: Path, config: RunConfig) -> None:
    """Raise ConfigError if schedule.num_steps, or the run's files, do not fit the checkpoint."""
    state, num_steps = place.state, config.schedule.num_steps
    if state.step > num_steps:
        raise ConfigError(
            f"schedule.num_steps = {num_steps}: at least {state.step} is accepted with --resume, for "
            f"that is the step of {place.checkpoint}"
        )
    check_lengths(folder, state.positions)
    History.read(folder, [], state.positions)


def remedy(folder: Path) -> str:
    """Return the advice for the run in `folder`, which cannot go on."""
    return (
        "nothing was changed: put the files back to go on, leave --resume out to start afresh, which keeps "
        f"this run beside {folder.name}, or give another run.name"
    )
