"""Whether the run's folder can be made or taken over, and what it will hold has room. Nothing is made."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rlstack.config.resume import Contents
from rlstack.config.schema import Precision, RunConfig
from rlstack.config.validate_placement import FIRST_PORT, LAST_PORT
from rlstack.config.weight_index import num_parameters
from rlstack.errors import ConfigError
from rlstack.orchestration.contents import contents_of
from rlstack.preflight.machine import (
    busy_ports,
    free_bytes,
    nearest_folder,
    too_few_ports,
    write_error,
)
from rlstack.preflight.planned import Planned
from rlstack.telemetry.run_dir import check_folder, folder_of
from rlstack.urls import is_url

LOOPBACK = "127.0.0.1"
MIB = 2**20


def folder(planned: Planned) -> Iterator[str]:
    """Whether run.dir can be written to, and the folder in it can be had, or gone on in."""
    config = planned.config
    name = config.run.name
    if is_url(config.run.dir) or not config.run.dir.isprintable() or "/" in name or name in ("", ".", ".."):
        return  # which has been refused
    try:
        error = write_error(nearest_folder(folder_of(config).parent))
        if error is None:
            inputs = _contents(config) if planned.resume else None
            check_folder(config, resume=planned.resume, inputs=inputs)
    except OSError as found:
        error = str(found)
    if error is not None:
        yield (f"run.dir = {config.run.dir}: {error}; give a folder to write to, or try again once it can be")


def _contents(config: RunConfig) -> Contents | None:
    """What the paths among the settings lead to; None where that is refused by another check."""
    try:
        return contents_of(config)
    except ConfigError:
        return None


def room(planned: Planned) -> Iterator[str]:
    """Room for the model: with less the run cannot end. What checkpoints take, the doctor says."""
    config = planned.config
    place = nearest_folder(folder_of(config))
    itemsize = 4 if config.policy.precision is Precision.fp32 else 2
    needed = num_parameters(Path(config.policy.model)) * itemsize
    if (free := free_bytes(place)) < needed:
        yield (
            f"run.dir = {config.run.dir}: {free / MIB:.1f} MiB free in {place}, and the model takes "
            f"{needed / MIB:.1f} MiB; make room, or give a folder on another disk"
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
