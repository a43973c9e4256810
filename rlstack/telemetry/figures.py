"""The figures of the paper (arXiv 2506.21495) from run folders: reward, entropy and length against step.

Needs matplotlib, which the extra `report` installs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import cycle, product
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

from rlstack.telemetry.curves import Curve, make_band
from rlstack.telemetry.figure_style import COLOURS, GREY, LINE_STYLES, STEP_LABEL, STYLE
from rlstack.telemetry.length_figure import draw_lengths


class Panel(NamedTuple):
    file: str
    metric: str
    title: str
    unit: str
    smoothed: bool = True  # False: few points, each drawn


DYNAMICS = (
    Panel("reward", "reward/mean", "Reward", "mean reward of the rollouts"),
    Panel("entropy", "policy/entropy", "Entropy", "nats per token, of the trained policy"),
    Panel("length", "rollout/length_mean", "Rollout length", "tokens, mean of the rollouts"),
)
ACCURACY = Panel("accuracy", "eval/accuracy", "Held-out accuracy", "share of correct answers", smoothed=False)


def write_figures(curves: Sequence[Curve], folder: Path, *, window: int) -> list[Path]:
    """Write a PNG for each metric that a curve has, one of all dynamics, and the histograms of the lengths.

    Args:
        curves: at least one.
        folder: made if it is not there; files of the same names are replaced.
        window: steps that the lines are means over.

    Returns:
        the files written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(STYLE):
        figures = dict(_figures(curves, window))
        for name, figure in figures.items():
            figure.savefig(folder / f"{name}.png")
    return [folder / f"{name}.png" for name in figures]


def _figures(curves: Sequence[Curve], window: int) -> Iterator[tuple[str, Figure]]:
    panels = [panel for panel in (*DYNAMICS, ACCURACY, *_task_rewards(curves)) if _has(curves, panel)]
    together = [panel for panel in panels if panel in DYNAMICS]
    if len(together) > 1:
        yield "dynamics", _draw(curves, together, window)
    for panel in panels:
        yield panel.file, _draw(curves, [panel], window)
    if (histograms := draw_lengths(curves)) is not None:
        yield "lengths_by_verdict", histograms


def _task_rewards(curves: Sequence[Curve]) -> list[Panel]:
    """A panel for each task's reward, if there are several tasks."""
    prefix = "reward/mean/"
    names = {name for curve in curves for run in curve.runs for row in run.steps for name in row}
    tasks = sorted(name.removeprefix(prefix) for name in names if name.startswith(prefix))
    if len(tasks) < 2:
        return []
    return [
        Panel(
            f"reward_{task.replace('/', '_')}",
            f"{prefix}{task}",
            f"Reward of {task}",
            "mean reward of its rollouts",
        )
        for task in tasks
    ]


def _has(curves: Sequence[Curve], panel: Panel) -> bool:
    return any(make_band(curve, panel.metric, window=1) is not None for curve in curves)


def _draw(curves: Sequence[Curve], panels: Sequence[Panel], window: int) -> Figure:
    size = (6.4, 4.6) if len(panels) == 1 else (4.2 * len(panels), 4.2)
    figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.06))
    for axes, panel in zip(np.atleast_1d(figure.subplots(1, len(panels))), panels, strict=True):
        _draw_panel(axes, curves, panel, window)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    columns = min(len(labels), 1 + 2 * len(panels))
    legend = figure.legend(handles, labels, loc="outside lower center", ncols=columns)
    legend.set_title(_note(curves, panels, window))
    legend.get_title().set(color=GREY, fontsize=9)
    return figure


def _draw_panel(axes: Axes, curves: Sequence[Curve], panel: Panel, window: int) -> None:
    looks: Iterator[Any] = cycle(
        {"color": colour, "linestyle": line} for line, colour in product(LINE_STYLES, COLOURS)
    )
    for curve, look in zip(curves, looks, strict=False):
        band = make_band(curve, panel.metric, window=window if panel.smoothed else 1)
        if band is None:
            axes.plot([], [], label=curve.label, **look)  # keeps the curve's place in the legend
            continue
        marker = None if panel.smoothed else "o"
        axes.plot(band.x, band.mean, label=curve.label, marker=marker, markersize=4, **look)
        if len(curve.runs) > 1:
            axes.fill_between(band.x, band.low, band.high, color=look["color"], alpha=0.15, linewidth=0)
    axes.set_title(panel.title)
    axes.set_xlabel(STEP_LABEL)
    axes.set_ylabel(panel.unit)
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))


def _note(curves: Sequence[Curve], panels: Sequence[Panel], window: int) -> str:
    """What the lines and the bands are."""
    parts = []
    if window > 1 and all(panel.smoothed for panel in panels):
        parts.append(f"means over {window} steps")
    seeds = {len(curve.runs) for curve in curves}
    if max(seeds) > 1:
        count = str(max(seeds)) if len(seeds) == 1 else f"up to {max(seeds)}"
        parts.append(f"lines: mean of {count} seeds, bands: lowest to highest seed")
    return "; ".join(parts)
