"""The page of a comparison: outcomes, curves over each other, and the settings that differ."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from rlstack.telemetry.axes import Axis
from rlstack.telemetry.comparison.figures import overlay
from rlstack.telemetry.comparison.runs import ComparedRun
from rlstack.telemetry.comparison.tables import (
    OUTCOME_HEADER,
    differing_machines,
    differing_settings,
    outcome_rows,
)
from rlstack.telemetry.course_sections import ACCURACY, COURSE, REWARD, SIGNAL
from rlstack.telemetry.curves import Curve, make_curves
from rlstack.telemetry.html_page import Block, Figure, Section, figure, side_by_side, table, text, write_page
from rlstack.telemetry.metrics import metric_of
from rlstack.telemetry.run_figures import WINDOW, Panel

MAX_NAMED = 4  # runs in the title
HEIGHT_PX, LEGEND_ROW_PX = 340, 20


def write_comparison(runs: Sequence[ComparedRun], path: Path, *, axis: Axis, metrics: Sequence[str]) -> None:
    """Write the page to `path`; replaces it.

    Args:
        axis: what the metrics below reward and accuracy are drawn against.
        metrics: names of metrics.jsonl to draw there; none: the usual ones.

    Raises:
        OSError: it cannot be written there.
    """
    curves = make_curves([run.log for run in runs])
    names = ", ".join(run.name for run in runs)
    write_page(
        path,
        title=names if len(runs) <= MAX_NAMED else f"{len(runs)} runs",
        subtitle=f"{len(runs)} runs compared",
        sections=list(_sections(runs, curves, axis, metrics)),
    )


def _sections(
    runs: Sequence[ComparedRun], curves: Sequence[Curve], axis: Axis, metrics: Sequence[str]
) -> Iterator[Section]:
    machines = differing_machines(runs)
    yield Section("Outcomes", list(_outcomes(runs, has_other_machines=machines is not None)))
    axes = dict.fromkeys((Axis.step, Axis.time, axis))
    learnt = [each for panel in (REWARD, ACCURACY) for at in axes for each in _overlays(curves, panel, at)]
    yield from _drawn("Reward and accuracy", learnt, curves, note=_note(curves))
    asked = {"Metrics": tuple(_panel(metric) for metric in metrics)}
    for title, panels in (asked if metrics else {"Course": COURSE, "Training signal": SIGNAL}).items():
        drawn = [each for panel in panels for each in _overlays(curves, panel, axis)]
        yield from _drawn(title, drawn, curves)
    for title, found in (
        ("Settings that differ", differing_settings(curves, runs)),
        ("Machines and versions that differ", machines),
    ):
        if found is not None:
            header, rows = found
            yield Section(title, [table(header, rows, words=range(1, len(header)))])


def _outcomes(runs: Sequence[ComparedRun], *, has_other_machines: bool) -> Iterator[Block]:
    if has_other_machines:
        yield text(
            "Warning: these runs had different machines or versions, listed below. Their times and speeds do "
            "not say which settings are faster."
        )
    yield table(OUTCOME_HEADER, outcome_rows(runs), words=[1])
    yield text(
        "Speeds are over the time of the steps, without start-up. The accuracies are those of the first and "
        "the last version that were evaluated, ± the standard error of the last."
    )


def _note(curves: Sequence[Curve]) -> str:
    note = f"Means over the last {WINDOW} steps; accuracies as they are."
    if any(len(curve.runs) > 1 for curve in curves):
        note += " Runs that differ only in name and seed are one line, their mean, in a band from the lowest "
        note += "to the highest."
    return note


def _drawn(
    title: str, figures: Sequence[Figure], curves: Sequence[Curve], note: str = ""
) -> Iterator[Section]:
    if figures:
        height_px = HEIGHT_PX + LEGEND_ROW_PX * (len(curves) // 2)
        blocks = [figure(each, height_px=height_px) for each in figures]
        yield Section(title, [*([text(note)] if note else []), side_by_side(blocks)])


def _overlays(curves: Sequence[Curve], panel: Panel, axis: Axis) -> Iterator[Figure]:
    """A figure for each of the panel's metrics that a run has."""
    for label, metric in panel.series.items():
        is_evaluation = metric.startswith("eval/")
        made = overlay(
            curves,
            metric,
            title=panel.title if len(panel.series) == 1 else f"{panel.title}: {label}",
            unit=panel.unit,
            axis=axis,
            window=1 if panel.logarithmic or is_evaluation else WINDOW,
            is_logarithmic=panel.logarithmic,
        )
        if made is not None:
            yield made


def _panel(metric: str) -> Panel:
    declared = metric_of(metric)
    return Panel(metric, declared.unit if declared is not None else "", {metric: metric})
