"""What a sweep leaves: table.md, runs.csv, findings.md and figures/."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from figures import figure_writer
from sweep_claims import markdown_findings
from sweep_table import RunResult, markdown_table, write_csv

from rlstack.errors import ConfigError
from rlstack.telemetry.curves import make_curves

FIGURES = {
    "regimes": ("offline", "s50", "s10", "s5", "online"),
    "objectives": ("online", "grpo", "group_dpo", "combined"),
    "terms": ("online", "nll", "entropy", "no_reference_sync"),
    "length_collapse": ("online", "length_collapse_reference_synced", "length_collapse"),
    "mixed": ("mixed",),
}
WINDOW = 10  # steps that the figures' lines are means over


def write_report(results: Sequence[RunResult], out: Path) -> list[Path]:
    """Write the report of finished runs; the files and folders written."""
    table, runs, findings = out / "table.md", out / "runs.csv", out / "findings.md"
    table.write_text(markdown_table(results), encoding="utf-8")
    write_csv(results, runs)
    findings.write_text(markdown_findings(results), encoding="utf-8")
    return [table, runs, findings, *_figures(results, out / "figures")]


def _figures(results: Sequence[RunResult], out: Path) -> list[Path]:
    """A folder of figures for each comparison of which there are runs; none without matplotlib."""
    try:
        write_figures = figure_writer()
    except ConfigError as error:
        print(f"no figures: {error}")
        return []
    written = []
    for name, recipes in FIGURES.items():
        if shown := [result.log for result in results if result.recipe in recipes]:
            write_figures(make_curves(shown), out / name, window=WINDOW)
            written.append(out / name)
    return written
