"""Print what the doctor wants to know of a configuration, as JSON.

python -m rlstack.doctor.read_settings CONFIG [KEY=VALUE ...]
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlstack.config.load import load_config
from rlstack.config.schedule_words import WITH_GENERATOR
from rlstack.config.schema import Precision, RunConfig
from rlstack.config.weight_index import num_parameters
from rlstack.errors import ConfigError
from rlstack.policy.model_folder import check_model_folder
from rlstack.running import check
from rlstack.telemetry.run_dir import folder_of

GIB = 2**30
MIB_OF_GIB = 1024
OPTIMIZER_BYTES = 12  # of a parameter: the weights and two moments, in fp32


def main(arguments: Sequence[str]) -> None:
    """Print, as JSON, what `rlstack train` would say of CONFIG."""
    path, *overrides = arguments
    print(json.dumps(read(Path(path), overrides)))


def read(path: Path, overrides: Sequence[str]) -> dict[str, Any]:
    """The fields of rlstack.doctor.facts.Settings."""
    try:
        config = load_config(path, overrides)
    except ConfigError as error:
        return {"refused": str(error).splitlines()}
    found: dict[str, Any] = {
        "run_folder": str(folder_of(config)),
        "joins_cluster": config.cluster.address is not None,
        "object_store_gib": config.cluster.object_store_mib / MIB_OF_GIB,
    }
    folder = Path(config.policy.model)
    try:
        check_model_folder(folder)
        size = num_parameters(folder)
    except ConfigError as error:
        return {**found, "model_refused": str(error).splitlines()}
    try:
        check(config)
    except ConfigError as error:
        return {**found, "refused": str(error).splitlines()}
    if config.cluster.port_range is not None:
        found["ports"] = tuple(config.cluster.port_range)
    return {**found, "checkpoints_gib": checkpoints_bytes(config, size) / GIB}


def checkpoints_bytes(config: RunConfig, parameters: int) -> int:
    """Of those that are kept, one that is being written, and the model: at most, without the logs.

    A checkpoint has the weights, where they differ from the policy's also the engines' or the reference's,
    and the optimiser's state.
    """
    itemsize = 4 if config.policy.precision is Precision.fp32 else 2
    schedule = config.schedule
    alone = schedule.sync_interval == 1 and schedule.reference_sync == WITH_GENERATOR
    checkpoint = parameters * (itemsize * (1 if alone else 2) + OPTIMIZER_BYTES)
    kept = config.checkpoint.keep_last + config.checkpoint.keep_best + 1
    saved = checkpoint * kept if schedule.save_every is not None else 0
    return saved + parameters * itemsize


if __name__ == "__main__":
    main(sys.argv[1:])
