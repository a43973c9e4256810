"""Whether the run's folder can be made or taken over, and what it will hold has room. Nothing is made."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from rlstack.config.schema import Precision, RunConfig
from rlstack.config.urls import is_url
from rlstack.config.validate_placement import FIRST_PORT, LAST_PORT
from rlstack.config.weight_index import num_parameters
from rlstack.files import try_lock
from rlstack.preflight.machine import (
    busy_ports,
    free_bytes,
    nearest_folder,
    too_few_ports,
    write_error,
)
from rlstack.preflight.planned import Planned
from rlstack.telemetry.run_dir import folder_of

LOOPBACK = "127.0.0.1"
OPTIMIZER_BYTES = 12  # of a parameter in a checkpoint: the weights and two moments, in fp32
MIB = 2**20


def folder(planned: Planned) -> Iterator[str]:
    """Whether run.dir can be written to, and no other run has the folder."""
    config = planned.config
    if is_url(config.run.dir) or not config.run.dir.isprintable() or "/" in config.run.name:
        return  # which has been refused
    path = folder_of(config)
    try:
        error = write_error(nearest_folder(path.parent))
        if error is None and path.is_dir():
            if (descriptor := try_lock(path)) is None:
                yield (
                    f"run.name = {path.name}: a run of this name is going on in {path}; wait for its end, or "
                    "give another run.name"
                )
            else:
                os.close(descriptor)
    except OSError as found:
        error = str(found)
    if error is not None:
        yield f"run.dir = {config.run.dir}: {error}; give a folder to write to"


def room(planned: Planned) -> Iterator[str]:
    """Room for the model and one checkpoint: with less the run cannot end."""
    config = planned.config
    place = nearest_folder(folder_of(config))
    needed = _least_bytes(config, num_parameters(Path(config.policy.model)))
    if (free := free_bytes(place)) < needed:
        yield (
            f"run.dir = {config.run.dir}: {free / MIB:.0f} MiB free in {place}, and the model "
            f"{'and a checkpoint take' if config.schedule.save_every else 'takes'} {needed / MIB:.0f} MiB; "
            "make room, or give a folder on another disk"
        )


def ports(planned: Planned) -> Iterator[str]:
    """Free ports in cluster.port_range on this machine; another machine's are not known here."""
    cluster = planned.config.cluster
    if cluster.address is not None:
        return
    given = cluster.port_range
    if given is None or len(given) != 2 or not FIRST_PORT <= given[0] <= given[1] <= LAST_PORT:
        return  # which has been refused
    if (found := too_few_ports(given, busy_ports(given, host=LOOPBACK))) is not None:
        yield "; ".join(found)


def _least_bytes(config: RunConfig, parameters: int) -> int:
    itemsize = 4 if config.policy.precision is Precision.fp32 else 2
    saved = itemsize + OPTIMIZER_BYTES if config.schedule.save_every is not None else 0
    return parameters * (itemsize + saved)
