"""How fast the ranks of the policy and of the engines work, of a step and of a run. Pure.

A rank is one GPU, or one process where there is none. Speeds are those at work: of the policy's ranks over
the time of their update, all their waits in it included; of the engines' over the time in which they sample.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rlstack.config.machine import gpu_names
from rlstack.config.parallel import num_policy_ranks
from rlstack.config.schema import RunConfig
from rlstack.telemetry.peaks import common_peak_tflops

Row = Mapping[str, Any]  # of metrics.jsonl

# Of a step: in less, single answers that arrive late or early would make the speed.
_LEAST_SAMPLING = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Throughput:
    """Of one layout."""

    num_policy_ranks: int
    num_engine_ranks: int
    peak_tflops: float | None  # of a policy rank

    @classmethod
    def of(cls, config: RunConfig) -> Throughput:
        """The peak is the setting, or else that of this machine's GPUs if they are known and alike."""
        peak = config.telemetry.peak_tflops
        return cls(
            num_policy_ranks=num_policy_ranks(config.policy),
            num_engine_ranks=config.rollout.engines * config.rollout.tensor_parallel,
            peak_tflops=peak or common_peak_tflops(gpu_names(), config.policy.precision),
        )

    def of_step(self, row: Row) -> dict[str, float]:
        """Metrics from the other metrics of a step; those that cannot be told are left out."""
        values = self._values([row])
        if row.get("time/sampling_s", 0.0) < _LEAST_SAMPLING * row["time/step_s"]:
            del values["throughput/generated_tokens_per_s_per_rank"]
        return {name: value for name, value in values.items() if value is not None}

    def of_run(self, rows: Iterable[Row]) -> dict[str, float | None]:
        """The same over all steps, each weighed by its time or tokens; None for what cannot be told."""
        return {name.partition("/")[2]: value for name, value in self._values(list(rows)).items()}

    def _values(self, rows: list[Row]) -> dict[str, float | None]:
        update_s, sampling_s = _sum("time/update_s", rows), _sum("time/sampling_s", rows)
        trained, padding = _sum("tokens/trained", rows), _sum("tokens/padding", rows)
        rank_s = update_s * self.num_policy_ranks
        tflops = _ratio(_sum("flops/train", rows) / 1e12, rank_s)
        bubble = [row for row in rows if "wait/pipeline_bubble" in row]
        bubble_s = sum(row["wait/pipeline_bubble"] * row["time/step_s"] for row in bubble)
        passes_s = _sum("time/update_s", bubble) + _sum("time/reference_s", bubble)
        return {
            "throughput/train_tokens_per_s_per_rank": _ratio(trained, rank_s),
            "throughput/train_tflops_per_rank": tflops,
            "throughput/mfu": tflops / self.peak_tflops if tflops and self.peak_tflops else None,
            "throughput/generated_tokens_per_s_per_rank": _ratio(
                _sum("tokens/sampled", rows), sampling_s * self.num_engine_ranks
            ),
            "pipeline/bubble_share": _ratio(bubble_s, passes_s),
            "packing/padding_share": _ratio(padding, trained + padding),
        }


def _sum(name: str, rows: Iterable[Row]) -> float:
    return float(sum(row.get(name) or 0.0 for row in rows))


def _ratio(value: float, by: float) -> float | None:
    return value / by if by > 0 else None
