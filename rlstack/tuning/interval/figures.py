"""The figures of a tuning, for Plotly, from tune.json. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from rlstack.telemetry.curves import trailing_mean
from rlstack.telemetry.html_page import Figure
from rlstack.tuning.interval.trials import PARTS

# Okabe and Ito's, told apart with every kind of colour vision, on white and on black; from online to offline.
COLOURS = ("#0072B2", "#56B4E9", "#009E73", "#E69F00", "#D55E00", "#CC79A7", "#888888")
NUM_POINTS = 120  # of a curve
LEGEND = {"orientation": "h", "y": -0.3}  # below the axis and its title
PART_LABELS = {
    "train": "train",
    "generate_wait": "waiting for rollouts",
    "reward": "waiting for rewards, credit",
    "sync": "sync",
    "other": "other",
}

Row = Mapping[str, Any]


class Course(NamedTuple):
    """Of one interval: the mean over its trials at points that all of them reach, lowest and highest."""

    x: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


def reward_against(made: Row, axis: str) -> Figure:
    """Lines of reward, one for each interval; `axis` is "steps", "minutes" or "hours" (of accelerators)."""
    titles = {
        "steps": "optimiser steps",
        "minutes": "minutes of steps, start-up and evaluations left out",
        "hours": f"{made['plan']['accelerator'].removesuffix('s')}-hours of steps",
    }
    traces = []
    for row, colour in zip(made["measures"], _colours(made), strict=True):
        trials = [trial for trial in made["trials"] if trial["interval"] == row["interval"]]
        course = average([_curve(made, trial, axis) for trial in trials])
        traces += list(_lines(course, f"s = {row['interval']}", colour, is_band=len(trials) > 1))
    return {
        "data": traces,
        "layout": {
            "xaxis": {"title": {"text": titles[axis]}, "rangemode": "tozero"},
            "yaxis": {"title": {"text": f"mean reward of {made['plan']['last_steps']} steps"}},
            "hovermode": "x unified",
            "legend": LEGEND,
        },
    }


def _curve(made: Row, trial: Row, axis: str) -> tuple[np.ndarray, np.ndarray]:
    """Points of one trial: x and the mean reward of the last steps before it."""
    window = made["plan"]["last_steps"]
    scored = np.array([reward is not None for reward in trial["rewards"]])
    x = {
        "steps": np.arange(1, len(scored) + 1, dtype=np.float64),
        "minutes": np.array(trial["ends_s"]) / 60,
        "hours": np.array(trial["ends_s"]) / 3600 * made["plan"]["accelerators"],
    }[axis]
    rewards = trailing_mean([reward for reward in trial["rewards"] if reward is not None], window)
    return x[scored][window - 1 :], rewards[window - 1 :]


def average(curves: Sequence[tuple[np.ndarray, np.ndarray]]) -> Course:
    """The curves at common points, from where all have begun to where the first ends."""
    first, last = max(x[0] for x, _ in curves), min(x[-1] for x, _ in curves)
    grid = np.linspace(first, last, NUM_POINTS)
    values = np.array([np.interp(grid, x, y) for x, y in curves])
    return Course(grid, values.mean(0), values.min(0), values.max(0))


def _lines(course: Course, name: str, colour: str, *, is_band: bool) -> Iterator[dict[str, Any]]:
    if is_band:
        ends = {"x": [*course.x, *course.x[::-1]], "y": [*course.high, *course.low[::-1]]}
        yield {
            **{key: _rounded(values) for key, values in ends.items()},
            "fill": "toself",
            "fillcolor": _faint(colour),
            "line": {"width": 0},
            "hoverinfo": "skip",
            "showlegend": False,
            "legendgroup": name,
        }
    yield {
        "x": _rounded(course.x),
        "y": _rounded(course.mean),
        "name": name,
        "mode": "lines",
        "line": {"color": colour, "width": 2},
        "legendgroup": name,
    }


def cost_against_reward(made: Row) -> Figure:
    """What syncing costs per step against reward per step: a point for each interval, and those that no other
    one beats in both joined by a line."""
    rows = made["measures"]
    costs = [row["part_s"]["sync"] + row["part_s"]["generate_wait"] for row in rows]
    rewards = [row["reward"]["mean"] for row in rows]
    front = pareto(costs, rewards)
    points = [
        {
            "x": [cost],
            "y": [reward],
            "error_y": {"type": "data", "array": [_half_width(row["reward"])], "thickness": 1},
            "mode": "markers",
            "marker": {"color": colour, "size": 11},
            "name": f"s = {row['interval']}",
        }
        for row, colour, cost, reward in zip(rows, _colours(made), costs, rewards, strict=True)
    ]
    line = {
        "x": [costs[i] for i in front],
        "y": [rewards[i] for i in front],
        "mode": "lines",
        "line": {"color": "#888888", "dash": "dot", "width": 1},
        "name": "none is better in both",
        "hoverinfo": "skip",
    }
    return {
        "data": [line, *points],
        "layout": {
            "xaxis": {"title": {"text": "sync and waiting for rollouts, s per step"}, "rangemode": "tozero"},
            "yaxis": {"title": {"text": f"mean reward of the last {made['plan']['last_steps']} steps"}},
            "legend": LEGEND,
        },
    }


def pareto(costs: Sequence[float], rewards: Sequence[float]) -> list[int]:
    """The places that no other one beats in both, by rising cost."""
    order = sorted(range(len(costs)), key=lambda i: (costs[i], -rewards[i]))
    front: list[int] = []
    for i in order:
        if not front or rewards[i] > rewards[front[-1]]:
            front.append(i)
    return front


def breakdown(made: Row) -> Figure:
    """What a step's time is spent on, a bar for each interval, and what the cost model expected."""
    rows = made["measures"]
    labels = [f"s = {row['interval']}" for row in rows]
    bars: list[dict[str, Any]] = [
        {
            "type": "bar",
            "x": labels,
            "y": [row["part_s"][part] for row in rows],
            "name": PART_LABELS[part],
            "marker": {"color": colour},
        }
        for part, colour in zip(sorted(PARTS, key=list(PART_LABELS).index), COLOURS, strict=False)
    ]
    predicted = [row["predicted_step_s"] for row in rows]
    if any(value is not None for value in predicted):
        marker = {"symbol": "line-ew", "size": 26, "line": {"width": 3, "color": "#D55E00"}}
        bars.append({"x": labels, "y": predicted, "mode": "markers", "marker": marker, "name": "predicted"})
    return {
        "data": bars,
        "layout": {
            "barmode": "stack",
            "yaxis": {"title": {"text": "s per step"}},
            "legend": {**LEGEND, "traceorder": "normal"},
            "xaxis": {"type": "category"},
        },
    }


def _colours(made: Row) -> list[str]:
    """One for each interval; from the eighth on they repeat."""
    return [COLOURS[i % len(COLOURS)] for i in range(len(made["measures"]))]


def _faint(colour: str) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.15)"


def _half_width(estimate: Row) -> float:
    return 0.0 if estimate["low"] is None else estimate["mean"] - estimate["low"]


def _rounded(values: Sequence[float] | np.ndarray) -> list[float]:
    return [float(f"{value:.5g}") for value in values]
