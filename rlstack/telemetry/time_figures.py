"""Where every role's time went, as figures for Plotly. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rlstack.telemetry.figure_style import STEP_LABEL
from rlstack.telemetry.html_page import Figure
from rlstack.telemetry.occupancy import Occupancy, Piece, State
from rlstack.telemetry.run_figures import Row, thinned
from rlstack.telemetry.time_tables import Use, percentages, seconds_by_use

MAX_PIECES = 4000  # that the timeline draws
BAR_PX = 34  # of a role
WAITING_OPACITY = 0.35

# What is waited for has the colour of the work that makes it.
_COLOURS = {
    "generate": "#0072B2",
    "rollouts": "#0072B2",
    "score": "#CC79A7",
    "reward": "#CC79A7",
    "train": "#009E73",
    "training": "#009E73",
    "forward": "#2DB88F",
    "backward": "#007556",
    "optimizer": "#7FCDB0",
    "gradients": "#B8E0D2",
    "reference": "#8A9A5B",
    "pipeline_bubble": "#D55E00",
    "sync": "#E69F00",
    "evaluation": "#56B4E9",
}
_OTHER = "#8C8C8C"
_WORK = {"policy": "training", "engine": "rollouts"}  # what a kind of roles makes


def shares(occupancy: Mapping[str, Occupancy]) -> Figure:
    """One bar for each role, of 100 %: busy, waiting (paler) and idle (empty)."""
    roles = list(occupancy)
    seconds = {role: seconds_by_use(occupancy[role]) for role in roles}
    of_role = {
        role: dict(zip(uses, percentages(list(uses.values())), strict=True)) for role, uses in seconds.items()
    }
    data = [
        {
            "type": "bar",
            "orientation": "h",
            "name": use.label,
            "y": roles,
            "x": [of_role[role].get(use, 0.0) for role in roles],
            "hovertemplate": f"%{{y}}: {use.label} %{{x:.1f}} %<extra></extra>",
            "marker": _marker(use),
        }
        for use in _in_order(use for uses in seconds.values() for use in uses)
    ]
    layout = {
        "title": {"text": "Shares of the steps' time"},
        "barmode": "stack",
        "xaxis": {"range": [0, 100], "ticksuffix": " %"},
        "yaxis": {"autorange": "reversed"},
    }
    return {"data": data, "layout": layout}


def height_px(num_roles: int) -> int:
    """Of a figure with a bar for each role."""
    return 150 + BAR_PX * num_roles


def timeline(pieces: Mapping[str, Sequence[Piece]], steps: Iterable[float], zero_s: float) -> Figure:
    """What each role does at each moment, in seconds after `zero_s`; `steps` are starts to mark."""
    roles = list(pieces)
    by_use: dict[Use, list[tuple[str, Piece]]] = {}
    for role in roles:
        for piece in pieces[role]:
            by_use.setdefault(Use(piece.state, piece.what), []).append((role, piece))
    data = [
        {
            "type": "bar",
            "orientation": "h",
            "name": use.label,
            "y": [role for role, _ in by_use[use]],
            "base": [round(piece.start_s - zero_s, 5) for _, piece in by_use[use]],
            "x": [round(piece.end_s - piece.start_s, 5) for _, piece in by_use[use]],
            "hovertemplate": f"%{{y}}: {use.label}<br>%{{x:.4f}} s from %{{base:.3f}} s<extra></extra>",
            "marker": _marker(use),
        }
        for use in _in_order(by_use)
        if use.state is not State.idle
    ]
    edge = {"type": "line", "yref": "paper", "y0": 0, "y1": 1, "line": {"width": 0.5, "color": _OTHER}}
    lines = [edge | {"x0": start_s - zero_s, "x1": start_s - zero_s} for start_s in steps]
    layout = {
        "title": {"text": "What each role does"},
        "barmode": "overlay",
        "bargap": 0.25,
        "shapes": lines,
        "xaxis": {"title": {"text": "seconds since the run began"}},
        "yaxis": {
            "autorange": "reversed",
            "categoryorder": "array",
            "categoryarray": roles,
            "fixedrange": True,
        },
    }
    return {"data": data, "layout": layout}


def over_steps(rows: Sequence[Row], kind: str, title: str) -> Figure | None:
    """A kind's shares of each step on top of each other; None if no row has them."""
    rows = [row for row in rows if row.get(f"busy/{kind}") is not None]
    if not rows:
        return None
    rows = [rows[i] for i in thinned(len(rows))]
    parts = _parts(rows, kind)
    data = [
        {
            "type": "scatter",
            "mode": "lines",
            "stackgroup": "one",
            "name": "busy" if use.state is State.busy else use.label,
            "x": [row["step"] for row in rows],
            "y": [100 * value for value in values],
            "line": {"width": 0, "color": _colour(use)},
            "fillcolor": _rgba(_colour(use), _opacity(use)),
        }
        for use, values in parts.items()
        if any(values)
    ]
    layout = {
        "title": {"text": title},
        "xaxis": {"title": {"text": STEP_LABEL}},
        "yaxis": {"range": [0, 100], "ticksuffix": " %"},
    }
    return {"data": data, "layout": layout}


def _parts(rows: Sequence[Row], kind: str) -> dict[Use, list[float]]:
    """Shares of each row that add up to 1; the policy's waits are told apart by their reasons."""
    busy = [row[f"busy/{kind}"] for row in rows]
    idle = [row.get(f"idle/{kind}", 0.0) for row in rows]
    names = (
        sorted({name for row in rows for name in row if name.startswith("wait/")}) if kind == "policy" else []
    )
    waits = {
        Use(State.waiting, name.removeprefix("wait/")): [row.get(name, 0.0) for row in rows] for name in names
    }
    if not names:
        waits = {Use(State.waiting, "others"): [max(0.0, 1 - b - i) for b, i in zip(busy, idle, strict=True)]}
    return {Use(State.busy, _WORK[kind]): busy, **waits, Use(State.idle, ""): idle}


def _in_order(uses: Iterable[Use]) -> list[Use]:
    """Each once: busy, waiting, idle."""
    return sorted(set(uses), key=lambda use: (list(State).index(use.state), use.what))


def _marker(use: Use) -> dict[str, Any]:
    return {"color": _rgba(_colour(use), _opacity(use)), "line": {"width": 0}}


def _colour(use: Use) -> str:
    return _COLOURS.get(use.what, _OTHER)


def _opacity(use: Use) -> float:
    return {State.busy: 1.0, State.waiting: WAITING_OPACITY, State.idle: 0.08}[use.state]


def _rgba(colour: str, opacity: float) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity})"
