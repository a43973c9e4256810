"""`rlstack plan-transfer`: a forecast as tables for the terminal and as JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.table import Table

from rlstack.errors import ConfigError
from rlstack.orchestration.transfer_forecast import Bound, Forecast

GB = 1e9


def show(figures: Forecast, *, title: str, json_file: Path | None) -> None:
    """Print the figures and their bounds; write them to `json_file` too if there is one.

    Raises ConfigError if the file cannot be written.
    """
    console = Console(highlight=False)
    console.print(figures_table(figures, title=title))
    console.print(bounds_table(figures.bounds))
    if json_file is None:
        return
    try:
        json_file.write_text(json.dumps(dataclasses.asdict(figures), indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"--json = {json_file}: cannot be written ({error.strerror}); give a path in a folder of yours"
        ) from None


def figures_table(figures: Forecast, *, title: str) -> Table:
    """What moves, and how the plan looks."""
    table = Table("", "", title=title, show_header=False)
    rows = {
        "model": _gb(figures.model_bytes),
        f"sent per source, most and least of {figures.num_sources}": (
            f"{_gb(figures.max_sent_bytes)}, {_gb(figures.min_sent_bytes)}"
        ),
        f"received, most of {figures.num_receivers}": _gb(figures.max_received_bytes),
        "its floor: the worker's own share": _gb(figures.max_floor_bytes),
        "received over floor": f"{figures.received_over_floor:.4f}",
        "moves": str(figures.num_moves),
        "buckets": str(figures.num_buckets),
        "sources per receiver, at most": str(figures.max_peers),
        "relays": str(figures.num_relays),
        "planned in": f"{figures.plan_s:.2f} s",
    }
    for what, figure in rows.items():
        table.add_row(what, figure)
    return table


def bounds_table(bounds: Mapping[str, Bound]) -> Table:
    """Lower bounds, links at full bandwidth: this plan beside one rank that broadcasts the whole model."""
    table = Table("link", "GB/s", "transfer", "broadcast", "ratio", title="no faster than")
    for link, bound in bounds.items():
        table.add_row(
            link,
            f"{bound.gb_per_s:g}",
            f"{bound.transfer_s * 1e3:.1f} ms",
            f"{bound.broadcast_s * 1e3:.1f} ms",
            f"{bound.broadcast_s / bound.transfer_s:.1f}",
        )
    return table


def _gb(num_bytes: int) -> str:
    return f"{num_bytes / GB:.3f} GB"
