"""The figures of a run's report, for Plotly. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rlstack.telemetry.curves import trailing_mean
from rlstack.telemetry.figure_style import COLOURS, GREY, STEP_LABEL
from rlstack.telemetry.html_page import Figure
from rlstack.telemetry.nvml import Sample

Row = Mapping[str, Any]

WINDOW = 10  # steps that the thick lines are means over
MAX_POINTS = 600  # of a line


def line(
    rows: Sequence[Row], metric: str, title: str, unit: str, *, logarithmic: bool = False
) -> Figure | None:
    """A metric against the step, its trailing mean over it; None if no row has it."""
    points = [(row["step"], row[metric]) for row in rows if row.get(metric) is not None]
    if not points:
        return None
    steps, values = (np.array(column, dtype=np.float64) for column in zip(*points, strict=True))
    chosen = thinned(len(steps))
    data: list[dict[str, Any]] = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": "each step",
            "x": steps[chosen].tolist(),
            "y": values[chosen].tolist(),
            "line": {"color": COLOURS[0], "width": 2 if logarithmic else 1},
            "opacity": 1 if logarithmic else 0.4,
        }
    ]
    if not logarithmic:
        data.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": f"mean over {WINDOW} steps",
                "x": steps[chosen].tolist(),
                "y": trailing_mean(values.tolist(), WINDOW)[chosen].tolist(),
                "line": {"color": COLOURS[0], "width": 2.5},
            }
        )
    return {"data": data, "layout": _layout(title, unit, logarithmic=logarithmic)}


def accuracy(evaluations: Sequence[Row]) -> Figure | None:
    """Held-out accuracy against the version, with its standard error; None without any."""
    points = [row for row in evaluations if row.get("eval/accuracy") is not None]
    if not points:
        return None
    errors = [row.get("eval/accuracy_stderr") or 0.0 for row in points]
    scatter = {
        "type": "scatter",
        "mode": "lines+markers",
        "x": [row["eval/version"] for row in points],
        "y": [row["eval/accuracy"] for row in points],
        "error_y": {"type": "data", "array": errors},
        "line": {"color": COLOURS[1]},
    }
    layout = _layout("Held-out accuracy", "share of correct answers")
    return {"data": [scatter], "layout": layout | {"showlegend": False}}


def syncs(rows: Sequence[Row]) -> Figure | None:
    """What every sync took; None without one."""
    points = [row for row in rows if row.get("sync/pause_s") is not None]
    if not points:
        return None
    parts = (("sync/pause_s", "generation stood still"), ("sync/receive_s", "until all had arrived"))
    data = [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": label,
            "x": [row["step"] for row in points],
            "y": [row.get(metric) for row in points],
            "line": {"color": colour},
        }
        for (metric, label), colour in zip(parts, COLOURS, strict=False)
    ]
    return {"data": data, "layout": _layout("Each sync", "seconds")}


def power(samples: Sequence[Sample], zero_s: float) -> Figure | None:
    """Each GPU's power, in seconds after `zero_s`; None if none tells it."""
    of_gpu: dict[str, list[Sample]] = {}
    for sample in samples:
        if sample.power_w is not None:
            of_gpu.setdefault(f"{sample.role}, GPU {sample.gpu}", []).append(sample)
    if not of_gpu:
        return None
    data = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": name,
            "x": [own[i].time_s - zero_s for i in thinned(len(own))],
            "y": [own[i].power_w for i in thinned(len(own))],
        }
        for name, own in of_gpu.items()
    ]
    layout = _layout("Power", "W")
    return {"data": data, "layout": layout | {"xaxis": {"title": {"text": "seconds since the run began"}}}}


def thinned(count: int) -> np.ndarray:
    """At most MAX_POINTS places among `count`, the last one included; [k] int64."""
    if count <= MAX_POINTS:
        return np.arange(count)
    return np.unique(np.linspace(0, count - 1, MAX_POINTS).round().astype(np.int64))


def _layout(title: str, unit: str, *, logarithmic: bool = False) -> dict[str, Any]:
    scale = {"type": "log", "exponentformat": "power"} if logarithmic else {}
    return {
        "title": {"text": title},
        "xaxis": {"title": {"text": STEP_LABEL}},
        "yaxis": {"title": {"text": unit}, **scale},
        "showlegend": not logarithmic,
        "hoverlabel": {"bordercolor": GREY},
    }
