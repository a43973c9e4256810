"""tune.json: everything that the report is made of, so that it can be drawn again. Pure."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rlstack.telemetry.run_dir import to_json
from rlstack.tuning.interval.halving import Plan, Rung
from rlstack.tuning.interval.intervals import OFFLINE_TEXT, Interval, setting
from rlstack.tuning.interval.measures import Measures, last_steps
from rlstack.tuning.interval.recommend import Recommendation
from rlstack.tuning.interval.trials import Trial, TrialResult

METHOD = (
    "Estimates are means over seeds with Student's t intervals, differences are paired by seed (Student "
    "1908); of a single seed the difference is paired by step and speaks of that trial only. An interval "
    "passes when the lower end of its difference to online is above minus the margin (non-inferiority, "
    "Schuirmann 1987). Nothing corrects for the number of comparisons, nor for the luck of the intervals "
    "that successive halving has kept. Time counts from the beginning of the first step, evaluations left "
    "out."
)

NO_RECOMMENDATION = "no recommendation: no trial of online (s = 1), which all are compared with, was finished"


def document(
    config: str,
    plan: Plan,
    *,
    accelerator: str,
    results: Mapping[Trial, TrialResult],
    failures: Mapping[Trial, str],
    rungs: Sequence[Rung],
    measured: Sequence[Measures],
    recommendation: Recommendation | None,
    predicted: Mapping[Interval, float] | None,
    notes: Sequence[str],
    origin: Mapping[str, Any],
) -> dict[str, Any]:
    """Plain data. Offline is "inf"; `recommended` is null only where there is no recommendation.

    Args:
        config: name of the file of settings.
        accelerator: what plan.accelerators counts.
        predicted: seconds per step by the cost model, of each interval; None without a calibration.
        origin: machine, versions and command.
    """
    verdicts = dict(recommendation.verdicts) if recommendation else {}
    return {
        "config": config,
        "recommended": written(recommendation.interval) if recommendation else None,
        "paste": setting(recommendation.interval) if recommendation else None,
        "reasons": list(recommendation.reasons) if recommendation else [],
        "notes": list(notes),
        "method": METHOD,
        "plan": {
            "intervals": [written(s) for s in plan.intervals],
            "seeds": list(plan.seeds),
            "num_steps": plan.num_steps,
            "last_steps": last_steps(plan.num_steps),
            "margin": plan.margin,
            "confidence": plan.confidence,
            "accelerators": plan.accelerators,
            "accelerator": accelerator,
        },
        **origin,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "rungs": [_rung(rung) for rung in rungs],
        "measures": [
            {
                **asdict(m),
                "interval": written(m.interval),
                "verdict": verdicts.get(m.interval),
                "predicted_step_s": predicted.get(m.interval) if predicted else None,
            }
            for m in measured
        ],
        "failures": [
            {"interval": written(trial.interval), "seed": trial.seed, "reason": reason}
            for trial, reason in failures.items()
        ],
        "trials": [{**asdict(r), "interval": written(r.interval)} for r in results.values()],
    }


def written(interval: Interval) -> int | str:
    """An interval in the document."""
    return OFFLINE_TEXT if interval is None else interval


def to_text(document: Mapping[str, Any]) -> str:
    """JSON with a line for each value at the top, and for each entry of a list there."""
    return "{\n" + ",\n".join(f"{to_json(key)}: {_lines(value)}" for key, value in document.items()) + "\n}\n"


def _lines(value: Any) -> str:
    if isinstance(value, list) and value:
        return "[\n  " + ",\n  ".join(map(to_json, value)) + "\n]"
    return to_json(value)


def _rung(rung: Rung) -> dict[str, Any]:
    return {
        "intervals": [written(s) for s in rung.intervals],
        "seeds": list(rung.seeds),
        "kept": [written(s) for s in rung.kept],
    }
