"""docs/reference/metrics.md, from rlstack/telemetry/metrics.py."""

from __future__ import annotations

from itertools import groupby

from reference_markdown import code, page, table

from rlstack.telemetry.metrics import METRICS, Metric, is_timing
from rlstack.telemetry.waiting import Kind, Reason

REDUCTIONS = {"fmean": "mean", "_last": "last"}  # what Python calls otherwise
KINDS, REASONS = (", ".join(code(word.value) for word in words) for words in (Kind, Reason))
INTRODUCTION = f"""Every step leaves one row of these in `metrics.jsonl`, and TensorBoard, W&B and MLflow
get the same names and numbers at the same step ([loggers](../how-to/loggers.md)). A run that logs a name
which is not here ends with an error, so the list is complete.

- **A name with braces** is a pattern: `{{task}}` stands for the name of any task of `data.tasks` or
  `evaluation.tasks`, `{{k}}` for a number of answers, `{{roles}}` for a kind of process ({KINDS}),
  `{{reason}}` for what is waited for ({REASONS}).
- **Over steps** says how the values of several steps become one: in `summary.json`, in tables of sweeps and
  tunings, and wherever a window of steps is compared.
- **Timing**: tells how long something took, and differs between two runs with the same results.
- `null` in `metrics.jsonl` is a number that is not finite, or a measure that could not be taken; the
  loggers leave it out, as they do with names that a step does not have.
- `eval/*` of the first and the last version lie outside the steps: they are in `summary.json` under
  `evaluations`, and with the loggers at their version."""


def metrics_page() -> str:
    """The whole page."""
    blocks = [INTRODUCTION]
    for prefix, some in groupby(sorted(METRICS, key=_order), key=_prefix):
        rows = [_row(name, METRICS[name]) for name in some]
        head = ["metric", "unit", "over steps", "timing", "meaning"]
        blocks += [f"## {prefix}/" if prefix else "## The step", table(head, rows)]
    return page("Metrics", "rlstack/telemetry/metrics.py", *blocks)


def reduction_name(metric: Metric) -> str:
    """How its values of several steps become one, in a word."""
    name = metric.reduction.__name__
    return REDUCTIONS.get(name, name)


def _row(name: str, metric: Metric) -> list[str]:
    timing = "yes" if is_timing(name) else ""
    return [code(name), metric.unit, reduction_name(metric), timing, metric.meaning]


def _prefix(name: str) -> str:
    return name.partition("/")[0] if "/" in name else ""


def _order(name: str) -> int:
    """As declared, those of a prefix together and those without one first."""
    prefixes = ["", *dict.fromkeys(_prefix(each) for each in METRICS)]
    return prefixes.index(_prefix(name))
