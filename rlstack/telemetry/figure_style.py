"""What all figures look like."""

from __future__ import annotations

from typing import Any

# Okabe and Ito's, told apart with every kind of colour vision; the yellow is too light on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
PAGE_COLOURS = (*COLOURS[:-1], "#888888")  # of figures that may stand on black
LINE_STYLES = ("-", "--", ":")
GREY = "#555555"
STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.5,
    "legend.frameon": False,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "savefig.dpi": 160,
}
STEP_LABEL = "optimiser steps"
