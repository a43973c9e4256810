"""Runs over each other, as figures for Plotly. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle, product
from typing import Any

import numpy as np

from rlstack.telemetry.axes import Axis
from rlstack.telemetry.curves import Band, Curve, make_band
from rlstack.telemetry.figure_style import PAGE_COLOURS, STEP_LABEL
from rlstack.telemetry.html_page import Figure
from rlstack.telemetry.run_figures import logarithmic, thinned

DASHES = ("solid", "dash", "dot")
BAND_OPACITY = 0.15
MAX_MARKED = 20  # points of a line that are marked


def overlay(
    curves: Sequence[Curve],
    metric: str,
    *,
    title: str,
    unit: str,
    axis: Axis,
    window: int,
    is_logarithmic: bool = False,
) -> Figure | None:
    """A line for each curve, with a band from the lowest to the highest of several runs; None without a line.

    A curve keeps its colour in all figures. With a window of 1 the points of a single run
    have their standard errors, where they were measured.
    """
    bands = [make_band(curve, metric, window=window, axis=axis) for curve in curves]
    longest = max((float(band.x[-1]) for band in bands if band is not None), default=None)
    if longest is None:
        return None
    label, scale = _axis(axis, longest)
    looks = cycle(product(DASHES, PAGE_COLOURS))
    data: list[dict[str, Any]] = []
    for curve, band, (dash, colour) in zip(curves, bands, looks, strict=False):
        if band is not None:
            line = {"color": colour, "dash": dash, "width": 2}
            data += _traces(curve, _scaled(band, scale), line)
            if window == 1 and len(curve.runs) == 1:
                data[-1]["error_y"] = _errors(curve, metric)
    y_axis: dict[str, Any] = {"title": {"text": unit}}
    if is_logarithmic:
        y_axis |= logarithmic(value for band in bands if band is not None for value in band.mean)
    layout = {
        "title": {"text": title},
        "xaxis": {"title": {"text": label}, "rangemode": "tozero"},
        "yaxis": y_axis,
        "showlegend": True,
    }
    return {"data": data, "layout": layout}


def _traces(curve: Curve, band: Band, line: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    chosen = thinned(len(band.x))
    x = band.x[chosen]
    if len(curve.runs) > 1:
        yield {
            "type": "scatter",
            "mode": "lines",
            "x": _rounded(np.concatenate([x, x[::-1]])),
            "y": _rounded(np.concatenate([band.high[chosen], band.low[chosen][::-1]])),
            "fill": "toself",
            "fillcolor": _faint(line["color"]),
            "line": {"width": 0},
            "hoverinfo": "skip",
            "showlegend": False,
            "legendgroup": curve.label,
        }
    yield {
        "type": "scatter",
        "mode": "lines+markers" if len(x) <= MAX_MARKED else "lines",
        "x": _rounded(x),
        "y": _rounded(band.mean[chosen]),
        "name": curve.label,
        "line": line,
        "legendgroup": curve.label,
    }


def _errors(curve: Curve, metric: str) -> dict[str, Any]:
    """Standard errors of the single run's points, in their order."""
    rows = {row["step"]: row for row in curve.runs[0].steps if row.get(metric) is not None}
    errors = [rows[step].get(f"{metric}_stderr") or 0.0 for step in sorted(rows)]
    return {"type": "data", "array": errors, "visible": any(errors)}


def _axis(axis: Axis, longest: float) -> tuple[str, float]:
    """The axis' title, and what its values are multiplied by."""
    if axis is Axis.step:
        return STEP_LABEL, 1.0
    if axis is Axis.tokens:
        return "sampled tokens", 1.0
    unit, seconds = next(
        (each for each in (("hours", 3600), ("minutes", 60)) if longest > 2 * each[1]), ("seconds", 1)
    )
    return f"{unit} of steps", 1 / seconds


def _scaled(band: Band, scale: float) -> Band:
    return Band(x=band.x * scale, mean=band.mean, low=band.low, high=band.high)


def _faint(colour: str) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{BAND_OPACITY})"


def _rounded(values: np.ndarray) -> list[float]:
    return [float(f"{value:.6g}") for value in values]
