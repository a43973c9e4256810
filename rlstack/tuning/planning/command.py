"""`rlstack plan`: from the options to the tables."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from rlstack.errors import ConfigError
from rlstack.tuning.planning.request import make_demand


def run(
    config: Path,
    overrides: Sequence[str],
    *,
    gpu: str,
    num_gpus: int | None,
    trainer_gpus: int | None,
    engine_gpus: int | None,
    intervals: str,
    assume: Sequence[str],
    price_per_gpu_hour: float | None,
    explain: bool,
    comment: bool,
    json_file: Path | None,
) -> None:
    """Plan, print, write. Raises ConfigError for what cannot be planned, or written.

    comment: print the memory of the config's own layout, which needs no number of GPUs, and nothing else.
    """
    model, demand = make_demand(config, overrides, gpu=gpu, assume=assume, intervals=intervals)

    from rlstack.tuning.planning.comment import comment_lines
    from rlstack.tuning.planning.planner import Budget
    from rlstack.tuning.planning.report import configured, make_plan
    from rlstack.tuning.planning.show import show

    if comment:
        print("\n".join(comment_lines(configured(demand))))
        return
    budget = Budget(num_gpus=num_gpus, trainer_gpus=trainer_gpus, engine_gpus=engine_gpus)
    plan = make_plan(model, demand, budget, price_per_gpu_hour=price_per_gpu_hour)
    show(plan, explain=explain)
    if json_file is None:
        return
    try:
        json_file.write_text(json.dumps(plan.as_json(), indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"--json = {json_file}: cannot be written ({error.strerror}); give a path in a folder of yours"
        ) from None
