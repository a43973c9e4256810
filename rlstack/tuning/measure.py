"""What a run's folder says about its cost."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from rlstack.config.load import load_stored
from rlstack.config.reward_names import verifier_workers
from rlstack.errors import ConfigError
from rlstack.telemetry.curves import read_rows, read_summary
from rlstack.telemetry.rollout_shards import ROLLOUTS, read_rollouts
from rlstack.telemetry.timing import PHASES
from rlstack.tuning.parts import Workload
from rlstack.tuning.setup import Setup, steady_steps

Row = Mapping[str, Any]

NUM_LENGTHS = 128  # that a workload's distribution of lengths is kept as


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredRun:
    """A finished run."""

    setup: Setup
    rows: Sequence[Row]  # of metrics.jsonl, one for each step
    lengths: Sequence[Sequence[int]]  # of each step's rollouts in tokens, group by group
    num_cores: int | None  # that all roles shared; None: they have accelerators
    reward_workers: int
    evaluation_s: float  # of one held-out evaluation; 0 if there was none
    start_up_s: float  # all that is neither a step nor an evaluation: start, saving, end

    @property
    def step_s(self) -> float:
        """Mean over the steady state, evaluations left out."""
        return statistics.fmean(seconds(self.rows[step], "step") for step in steady_steps(self.setup))

    def share(self, metric: str) -> float | None:
        """Mean over the steady state of a share of the step, such as busy/engine; None: it was not logged."""
        values = [self.rows[step].get(metric) for step in steady_steps(self.setup)]
        known = [value for value in values if value is not None]
        return statistics.fmean(known) if known else None

    @property
    def workload(self) -> Workload:
        """What the prompts of this run brought with them."""
        trained = statistics.fmean(row.get("tokens/trained", 0.0) for row in self.rows)
        return Workload(
            prompt_tokens=statistics.fmean(row["rollout/prompt_length_mean"] for row in self.rows),
            answer_tokens=quantiles(list(chain.from_iterable(self.lengths)), NUM_LENGTHS),
            trained_tokens_per_prompt=trained / self.setup.prompts_per_step,
        )


def measured_run(folder: Path) -> MeasuredRun:
    """The completed run in `folder`.

    Raises:
        OSError: it is going on.
        ConfigError: it ended early, or its config.yaml is not valid.
    """
    summary = read_summary(folder)
    if summary["status"] != "completed":
        raise ConfigError(f"{folder}: the run is {summary['status']}; only a completed one can be measured")
    rows = list(read_rows(folder / "metrics.jsonl"))
    lengths: list[list[int]] = [[] for _ in rows]
    for rollout in read_rollouts(folder / ROLLOUTS):
        lengths[rollout["step"] - rows[0]["step"]].append(rollout["length_tokens"])
    if not all(lengths):
        raise ConfigError(
            f"{folder}: step {lengths.index([]) + rows[0]['step']} has no rollouts in {ROLLOUTS}; only a run "
            "whose every step has some can be measured, with telemetry.rollouts=all for example"
        )
    config = load_stored(folder / "config.yaml")
    hardware, evaluate_s = summary["hardware"], summary["time_s"]["evaluate"]
    num_evaluations = len(summary["evaluations"])
    return MeasuredRun(
        setup=Setup.of(config),
        rows=rows,
        lengths=lengths,
        num_cores=None if hardware["gpus"] else hardware["num_cores"],
        reward_workers=verifier_workers(config.reward),
        evaluation_s=evaluate_s / num_evaluations if num_evaluations else 0.0,
        start_up_s=summary["wall_s"] - evaluate_s - sum(seconds(row, "step") for row in rows),
    )


def quantiles(values: Sequence[float], count: int) -> tuple[float, ...]:
    """`count` values of about the distribution of `values`: the middles of as many equal shares."""
    ordered = sorted(values)
    return tuple(ordered[int((i + 0.5) / count * len(ordered))] for i in range(count))


def seconds(row: Row, phase: str) -> float:
    """A step's time in one of timing.PHASES, in `other` (in no phase), or as a `step` without evaluation."""
    if phase == "step":
        return float(row["time/step_s"] - row["time/evaluate_s"])
    if phase == "other":
        return float(row["time/step_s"] - sum(row[f"time/{name}_s"] for name in PHASES))
    return float(row[f"time/{phase}_s"])
