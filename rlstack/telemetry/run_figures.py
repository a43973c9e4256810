"""The figures of a run's report, for Plotly. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle
from typing import Any, NamedTuple

import numpy as np

from rlstack.telemetry.curves import trailing_mean
from rlstack.telemetry.figure_style import GREY, PAGE_COLOURS, STEP_LABEL
from rlstack.telemetry.html_page import Figure
from rlstack.telemetry.nvml import Sample

Row = Mapping[str, Any]

WINDOW = 10  # steps that the thick lines are means over
MAX_POINTS = 600  # of a line


class Panel(NamedTuple):
    """Metrics that share a pair of axes."""

    title: str
    unit: str
    series: Mapping[str, str]  # metrics by their labels, which are shown from two on
    logarithmic: bool = False  # means of such values would be those of the largest


def lines(rows: Sequence[Row], panel: Panel) -> Figure | None:
    """Metrics against the step, each thin with its trailing mean over it; None if no row has one of them."""
    found = [
        (label, _points(rows, metric), colour)
        for (label, metric), colour in zip(panel.series.items(), cycle(PAGE_COLOURS), strict=False)
    ]
    found = [each for each in found if each[1]]
    data = [trace for each in found for trace in _traces(*each, logarithmic=panel.logarithmic)]
    layout = _layout(panel.title, panel.unit, logarithmic=panel.logarithmic)
    return {"data": data, "layout": layout | {"showlegend": len(found) > 1}} if data else None


def _points(rows: Sequence[Row], metric: str) -> list[tuple[float, float]]:
    return [(row["step"], row[metric]) for row in rows if row.get(metric) is not None]


def _traces(
    label: str, points: Sequence[tuple[float, float]], colour: str, *, logarithmic: bool
) -> Iterator[dict[str, Any]]:
    steps, values = (np.array(column, dtype=np.float64) for column in zip(*points, strict=True))
    chosen = thinned(len(steps))
    each = {
        "type": "scatter",
        "mode": "lines" if len(points) > 1 else "markers",
        "name": label,
        "legendgroup": label,
        "x": steps[chosen].tolist(),
        "y": values[chosen].tolist(),
        "line": {"color": colour, "width": 1.5 if logarithmic else 1},
        "marker": {"color": colour},
    }
    if logarithmic or len(points) == 1:
        yield each
        return
    yield each | {"opacity": 0.4, "showlegend": False, "hoverinfo": "skip"}
    mean = trailing_mean(values.tolist(), WINDOW)[chosen].tolist()
    yield each | {"y": mean, "line": {"color": colour, "width": 2.5}}


def evaluated(evaluations: Sequence[Row], panel: Panel) -> Figure | None:
    """Held-out metrics against the version, with the standard errors of those that have one; None without."""
    data = []
    for (label, metric), colour in zip(panel.series.items(), cycle(PAGE_COLOURS), strict=False):
        points = [row for row in evaluations if row.get(metric) is not None]
        errors = [row.get(f"{metric}_stderr") or 0.0 for row in points]
        trace = {
            "type": "scatter",
            "mode": "lines+markers",
            "name": label,
            "x": [row["eval/version"] for row in points],
            "y": [row[metric] for row in points],
            "error_y": {"type": "data", "array": errors, "visible": any(errors)},
            "line": {"color": colour},
        }
        data += [trace] if points else []
    layout = _layout(panel.title, panel.unit) | {"xaxis": {"title": {"text": "version"}}}
    return {"data": data, "layout": layout | {"showlegend": len(data) > 1}} if data else None


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
        for (metric, label), colour in zip(parts, PAGE_COLOURS, strict=False)
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
        "hoverlabel": {"bordercolor": GREY},
    }
