"""From the command line to what is to be planned; imports nothing heavy."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from rlstack.config.arithmetic import Arithmetic
from rlstack.config.load import load_config
from rlstack.config.machine import Machine
from rlstack.config.validate import problems
from rlstack.errors import ConfigError
from rlstack.model.known_models import planned_model
from rlstack.tuning.interval.intervals import parse
from rlstack.tuning.planning.assumptions import Assumptions
from rlstack.tuning.planning.demand import Demand
from rlstack.tuning.planning.hardware import gpu_of


def make_demand(
    config: Path, overrides: Sequence[str], *, gpu: str, assume: Sequence[str], intervals: str
) -> tuple[str, Demand]:
    """The model's name, and the demand of the run that the settings describe.

    Neither the model's weights nor the data need be there. Raises ConfigError for what cannot work on any
    number of GPUs.
    """
    run = load_config(config, overrides)
    name, architecture = planned_model(run.policy.model)
    everything = Arithmetic(compute_capability=(10, 0), cuda=(13, 0), transformer_engine=(2, 14))
    anywhere = Machine(num_cores=1, num_gpus=sys.maxsize, arithmetic=everything)
    if found := problems(run, architecture=architecture, machine=anywhere):
        raise ConfigError("\n".join(found))
    return name, Demand(
        config=run,
        architecture=architecture,
        gpu=gpu_of(gpu),
        assumptions=Assumptions().with_overrides(assume),
        intervals=tuple(parse(intervals)),
    )
