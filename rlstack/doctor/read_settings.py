"""Print what the doctor wants to know of a configuration, as JSON.

python -m rlstack.doctor.read_settings [--sizes-only] [--without-cluster] CONFIG [KEY=VALUE ...]
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlstack.config.load import load_config
from rlstack.config.own_code import OwnCode
from rlstack.config.schedule_words import WITH_GENERATOR
from rlstack.config.schema import Precision, RunConfig
from rlstack.config.weight_index import num_parameters
from rlstack.errors import ConfigError
from rlstack.preflight.checks import CHECKS, checks_named
from rlstack.preflight.planned import Planned
from rlstack.preflight.runner import Check, find_problems
from rlstack.telemetry.run_dir import folder_of

SIZES_ONLY = "--sizes-only"  # without the checks that take longer
WITHOUT_CLUSTER = "--without-cluster"  # which another process joins
GIB = 2**30
MIB_OF_GIB = 1024
OPTIMIZER_BYTES = 12  # of a parameter: the weights and two moments, in fp32


def main(arguments: Sequence[str]) -> None:
    """Print, as JSON, what `rlstack train` would say of CONFIG."""
    words = [word for word in arguments if word not in (SIZES_ONLY, WITHOUT_CLUSTER)]
    checks = checks_named("settings", "model") if SIZES_ONLY in arguments else CHECKS
    if WITHOUT_CLUSTER in arguments:
        checks = [check for check in checks if check.name != "cluster"]
    print(json.dumps(read(Path(words[0]), words[1:], checks)))


def read(path: Path, overrides: Sequence[str], checks: Sequence[Check] = CHECKS) -> dict[str, Any]:
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
    lines = find_problems(Planned(config=config, own=OwnCode()), checks)
    if config.cluster.port_range is not None and not lines["settings"]:
        found["ports"] = tuple(config.cluster.port_range)
    if model_refused := lines.pop("model", []):
        found["model_refused"] = model_refused
    else:
        size = num_parameters(Path(config.policy.model))
        found["checkpoints_gib"] = checkpoints_bytes(config, size) / GIB
    return {**found, "refused": [line for some in lines.values() for line in some]}


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
