"""report.html of a run: how it ended, its course, and where the time of every role went."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rlstack.telemetry import course_sections, run_figures, time_sections
from rlstack.telemetry.clock import clock
from rlstack.telemetry.html_page import Section, code, facts, figure, side_by_side, table, write_page
from rlstack.telemetry.metrics import over_steps
from rlstack.telemetry.rollouts.section import rollouts_section
from rlstack.telemetry.run_record import RunRecord
from rlstack.telemetry.run_timeline import step_shares
from rlstack.telemetry.settings_section import settings_section
from rlstack.telemetry.throughput_section import throughput_section
from rlstack.telemetry.trace import write_trace


def write_outputs(run: RunRecord) -> list[Path]:
    """Write what is made of a run's other files into its folder: report.html, and timeline.json of its spans.

    Returns:
        the files written.

    Raises:
        OSError: they cannot be written there.
    """
    trace = run.path / "timeline.json"
    if run.times.spans:
        write_trace(trace, run.times.spans, run.samples, stretches=run.times.whole)
    return [write_report(run), *([trace] if run.times.spans else [])]


def write_report(run: RunRecord) -> Path:
    """Write report.html into the run's folder; the file written.

    Raises:
        OSError: it cannot be written there.
    """
    path = run.path / "report.html"
    made = [make(run) for make in SECTIONS]
    write_page(
        path, title=run.name, subtitle=_subtitle(run), sections=[part for part in made if part is not None]
    )
    return path


def _subtitle(run: RunRecord) -> str:
    if run.summary is None:
        return f"going on, {len(run.steps)} steps so far"
    return f"{run.summary['status']} after {run.summary['steps']} steps in {clock(run.summary['wall_s'])}"


def _error(run: RunRecord) -> Section | None:
    """Why a run has failed, and where its logs are; runs of earlier versions do not say."""
    error = (run.summary or {}).get("error")
    if error is None:
        return None
    where = {"raised in": f"{error['file']}:{error['line']}"} if error["file"] else {}
    logs = {"traceback": error["log"], "logs of its processes": "logs/"} if error["log"] else {}
    found = facts({"error": error["type"], **where, **logs})
    return Section("Error", [found, code(error["message"])])


def _overview(run: RunRecord) -> Section | None:
    summary = run.summary
    if summary is None:
        return None
    blocks = [facts(_key_figures(summary) | _busy(run))]
    if summary["alarms"]:
        rows = [[str(a["step"]), a["alarm"], a["action"], a["reason"]] for a in summary["alarms"]]
        blocks.append(table(["step", "alarm", "action", "reason"], rows, words=[1, 2, 3]))
    if restarts := summary.get("restarts"):
        rows = [
            [str(r["step"]), r["role"], _outcome(r), f"{r['seconds']:.1f}", r["reason"]] for r in restarts
        ]
        columns = ["after step", "lost", "what followed", "seconds", "reason"]
        blocks.append(table(columns, rows, words=[1, 2, 4]))
    return Section("Outcome", blocks)


def _outcome(restart: Mapping[str, Any]) -> str:
    """Of a row of restarts.jsonl; older runs have fewer fields."""
    if restart.get("failed"):
        return f"not replaced: {restart['error']}"
    return f"replaced on {restart['moved_to']}" if restart.get("moved_to") else "replaced"


def _key_figures(summary: Mapping[str, Any]) -> dict[str, str]:
    wall_s, tokens = summary["wall_s"], summary["tokens"]
    return {
        "reward, first to last 20 steps": _change(summary["reward_first20"], summary["reward_last20"]),
        "held-out accuracy": _change(summary["accuracy_initial"], summary["accuracy_final"]),
        "tokens generated per second": f"{tokens['generated'] / wall_s:.0f}",
        "tokens trained per second": f"{tokens['trained'] / wall_s:.0f}",
        "syncs": str(summary["syncs"]),
        "largest logprob mismatch": _number(summary["mismatch_logprob_abs_max"]),
        **_interruptions(summary),
    }


def _interruptions(summary: Mapping[str, Any]) -> dict[str, str]:
    steps = ", ".join(map(str, summary.get("resumed", ())))
    return {"taken up again after step": steps} if steps else {}


def _busy(run: RunRecord) -> dict[str, str]:
    """Of the steps' time, a mean over the roles of a kind."""
    shares = step_shares(run.times.all_steps.roles)
    names = {"busy/policy": "policy busy", "busy/engine": "engines busy"}
    return {label: f"{shares[name]:.0%}" for name, label in names.items() if name in shares}


def _syncs(run: RunRecord) -> Section | None:
    drawn = run_figures.syncs(run.steps)
    if drawn is None:
        return None
    rows = [row for row in run.steps if "sync/pause_s" in row]
    pause_s, step_s = (over_steps(name, run.steps) or 0.0 for name in ("time/sync_s", "time/step_s"))
    size = over_steps("sync/bytes", run.steps) or 0
    values = {
        "syncs": str(len(rows)),
        "MB received at each": f"{size / len(rows) / 1e6:.1f}",
        "seconds of all": f"{pause_s:.2f}",
        "of the steps' time": f"{100 * pause_s / step_s:.1f} %" if step_s else "not measured",
        "furthest on the probe": _number(over_steps("sync/probe_abs_mean", run.steps)),
    }
    return Section("Weight sync", [facts(values), side_by_side([figure(drawn)])])


def _change(before: float | None, after: float | None) -> str:
    return " → ".join("not measured" if value is None else f"{value:.3f}" for value in (before, after))


def _number(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.3g}"


# In the order of the page; a section that has nothing to show is left out.
SECTIONS: tuple[Callable[[RunRecord], Section | None], ...] = (
    _error,
    _overview,
    course_sections.course,
    course_sections.tasks,
    course_sections.signal,
    rollouts_section,
    time_sections.shares,
    time_sections.timeline,
    throughput_section,
    _syncs,
    time_sections.sync_intervals,
    time_sections.gpus,
    settings_section,
)
