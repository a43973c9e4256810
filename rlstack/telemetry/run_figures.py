"""The figures of a run's report, for Plotly. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle
from typing import Any, NamedTuple

import numpy as np

from rlstack.telemetry.curves import trailing_mean
from rlstack.telemetry.figure_style import GREY, PAGE_COLOURS, STEP_LABEL
from rlstack.telemetry.html_page import Figure
from rlstack.telemetry.nvml import Sample

Row = Mapping[str, Any]
Points = Sequence[tuple[float, float]]  # step and value

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
    points = {label: _points(rows, metric) for label, metric in panel.series.items()}
    found = {label: own for label, own in points.items() if own}
    draw = _each_step if panel.logarithmic else _with_mean
    data: list[dict[str, Any]] = []
    for i, (label, own) in enumerate(found.items()):
        line = {"color": PAGE_COLOURS[i % len(PAGE_COLOURS)]}
        if i and panel.logarithmic:
            line["dash"] = "dot"  # it may lie on the one before
        data += draw(label, own, line)
    layout = _layout(panel.title, panel.unit) | {"showlegend": len(found) > 1}
    if panel.logarithmic:
        layout["yaxis"] |= logarithmic(value for own in found.values() for _, value in own)
    return {"data": data, "layout": layout} if data else None


def _points(rows: Sequence[Row], metric: str) -> Points:
    return [(row["step"], row[metric]) for row in rows if row.get(metric) is not None]


def _each_step(label: str, points: Points, line: Mapping[str, Any]) -> list[dict[str, Any]]:
    x, y = zip(*(points[i] for i in thinned(len(points))), strict=True)
    return [
        {
            "type": "scatter",
            "mode": "lines" if len(points) > 1 else "markers",
            "name": label,
            "x": x,
            "y": y,
            "line": {"width": 1.5, **line},
            "legendgroup": label,
        }
    ]


def _with_mean(label: str, points: Points, line: Mapping[str, Any]) -> list[dict[str, Any]]:
    if len(points) == 1:
        return _each_step(label, points, line)
    steps, values = zip(*points, strict=True)
    means = list(zip(steps, trailing_mean(values, WINDOW).tolist(), strict=True))
    (thin,) = _each_step(label, points, {**line, "width": 1})
    return [
        thin | {"opacity": 0.5, "showlegend": False, "hoverinfo": "skip"},
        *_each_step(label, means, {**line, "width": 2.5}),
    ]


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


def logarithmic(values: Iterable[float]) -> dict[str, Any]:
    """An axis for these values: ticks at powers of ten, and in a narrow range at 2 and 5 times these."""
    positive = [value for value in values if value > 0] or [1.0]
    is_narrow = max(positive) < 100 * min(positive)
    return {"type": "log", "tickformat": "~e", **({"dtick": "D2"} if is_narrow else {"nticks": 6})}


def _layout(title: str, unit: str) -> dict[str, Any]:
    return {
        "title": {"text": title},
        "xaxis": {"title": {"text": STEP_LABEL}},
        "yaxis": {"title": {"text": unit}},
        "hoverlabel": {"bordercolor": GREY},
    }
