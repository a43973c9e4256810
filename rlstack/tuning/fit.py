"""From calibration runs to the parts of the cost model, and how sure each part is. Pure.

In the runs in turn every part is alone on the machine, and each step is an observation of it: linear least
squares without negative coefficients. What the parts cost each other is the one number that makes the
simulation of the overlapped run as long as that run was.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from rlstack.tuning.batching import decoding_steps
from rlstack.tuning.cost_model import predict
from rlstack.tuning.least_squares import Fit, least_squares
from rlstack.tuning.measure import MeasuredRun, Row, seconds
from rlstack.tuning.parts import Controller, Generation, Parts, Scoring, Sharing, Sync, Training

WARM_UP_STEPS = 2  # of each run: they pay for what is done once
DISTURBED = 6.0  # times the median deviation from the fit: about four standard deviations
MAX_SLOWDOWN = 2.0
TOLERANCE = 1e-3  # of the slowdown that is searched for


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibrated:
    """Parts, and what is to be known about them; figures are named as in Parts: training.fixed_s."""

    parts: Parts
    errors: Mapping[str, float]  # standard errors of the fitted figures that are not 0
    notes: Sequence[str]  # what could not be told from the runs


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a run in turn."""

    run: MeasuredRun
    index: int

    @property
    def row(self) -> Row:
        return self.run.rows[self.index]

    @property
    def num_rollouts(self) -> int:
        return len(self.run.lengths[self.index])


def calibrate(runs: Sequence[MeasuredRun]) -> Calibrated:
    """The parts that explain `runs`, those of calibration.calibration_runs.

    The workload is that of the last run. Without an overlapped run nothing is known about a slowdown.

    Raises ValueError if no run is in turn, or if none of their steps trained on anything.
    """
    in_turn = [run for run in runs if not run.setup.overlap]
    if not in_turn:
        raise ValueError("a calibration needs a run with rollout.overlap=false, where parts can be timed")
    steps = [Step(run, i) for run in in_turn for i in range(WARM_UP_STEPS, len(run.rows))]
    trained = [step for step in steps if step.row.get("tokens/trained")]
    if not trained:
        raise ValueError(
            "a calibration needs steps that are trained on: all rewards tied in the runs in turn"
        )
    fits = {
        "generation": _fit(steps, "generate_wait", _decoding),
        "training": _fit(trained, "train", _trained),
        "scoring": _fit(steps, "reward", _rollouts),
        "controller": _fit(steps, "other", _rollouts),
    }
    parts = Parts(
        workload=runs[-1].workload,
        generation=Generation(**fits["generation"].values),
        training=Training(**fits["training"].values),
        scoring=_scoring(fits["scoring"], in_turn[0].reward_workers),
        controller=Controller(**fits["controller"].values),
        sync=_sync([step.row for step in steps]),
        sharing=Sharing(cores=in_turn[0].num_cores),
        evaluation_s=in_turn[0].evaluation_s,
        start_up_s=statistics.fmean(run.start_up_s for run in runs),
    )
    notes = [note for name, fit in fits.items() for note in _notes(name, fit)]
    overlapped = [run for run in runs if run.setup.overlap]
    if parts.sharing.cores is not None and overlapped:
        slowdown = statistics.fmean(_slowdown(parts, run) for run in overlapped)
        parts = replace(parts, sharing=replace(parts.sharing, slowdown=slowdown))
        if slowdown in (0.0, MAX_SLOWDOWN):
            notes.append(f"no slowdown between 0 and {MAX_SLOWDOWN:g} explains the overlapped run's time")
    errors = {f"{name}.{key}": error for name, fit in fits.items() for key, error in fit.errors.items()}
    return Calibrated(parts=parts, errors=errors, notes=notes)


def _fit(steps: Sequence[Step], phase: str, columns: Callable[[Step], Mapping[str, float]]) -> Fit:
    """`phase`'s seconds in each step as a sum over what `columns` says of the step.

    Steps that took far longer or shorter than the fit says were disturbed: it is made again without them.
    """
    observed = [(columns(step), seconds(step.row, phase)) for step in steps]
    first = _least_squares(observed)
    left = [spent - sum(first.values[name] * x for name, x in row.items()) for row, spent in observed]
    spread = statistics.median(map(abs, left))
    kept = [each for each, rest in zip(observed, left, strict=True) if abs(rest) <= DISTURBED * spread]
    return _least_squares(kept)


def _least_squares(observed: Sequence[tuple[Mapping[str, float], float]]) -> Fit:
    columns = {name: [row[name] for row, _ in observed] for name in observed[0][0]}
    return least_squares(columns, [spent for _, spent in observed])


def _decoding(step: Step) -> dict[str, float]:
    """Of the first engine, which has the most prompts.

    What a call costs as such cannot be told from its decoding steps, whose number hardly varies: it counts
    as theirs.
    """
    setup, lengths = step.run.setup, step.run.lengths[step.index]
    mine = [lengths[i] for i in range(len(lengths)) if i // setup.n % setup.engines == 0]
    _, ends = decoding_steps(mine, setup.max_num_seqs)
    return {"decode_s": max(ends), "decode_s_per_sequence": sum(mine)}


def _trained(step: Step) -> dict[str, float]:
    setup = step.run.setup
    alone = Training(s_per_token=1.0)
    tokens = alone.seconds(step.row["tokens/trained"], setup.layout)
    reference = float(setup.needs_reference_pass(step.index))
    return {
        "fixed_s": 1.0,
        "s_per_token": tokens,
        "reference_fixed_s": reference,
        "reference_s_per_token": reference * tokens,
    }


def _rollouts(step: Step) -> dict[str, float]:
    return {"fixed_s": 1.0, "s_per_rollout": step.num_rollouts}


def _scoring(fit: Fit, workers: int) -> Scoring:
    """The runs show the workers together."""
    figures = fit.values
    return Scoring(
        fixed_s=figures["fixed_s"], s_per_rollout=workers * figures["s_per_rollout"], workers=workers
    )


def _sync(rows: Sequence[Row]) -> Sync:
    """Of one model there is one number of bytes, so all that a sync takes counts as latency."""
    synced = [row for row in rows if "sync/bytes" in row]
    if not synced:
        return Sync(num_bytes=0.0, bytes_per_s=None, latency_s=0.0)
    whole_s = statistics.median(seconds(row, "sync") for row in synced)
    pause_s = min(whole_s, statistics.median(row["sync/land_s"] for row in synced))
    return Sync(
        num_bytes=statistics.fmean(row["sync/bytes"] for row in synced),
        bytes_per_s=None,
        latency_s=whole_s - pause_s,
        pause_s=pause_s,
    )


def _slowdown(parts: Parts, run: MeasuredRun) -> float:
    """By bisection: a greater slowdown makes the run longer."""
    parts = replace(parts, workload=run.workload)
    low, high = 0.0, MAX_SLOWDOWN

    def too_short(slowdown: float) -> bool:
        trial = replace(parts, sharing=replace(parts.sharing, slowdown=slowdown))
        return predict(trial, run.setup).step_s < run.step_s

    if not too_short(low):
        return low
    if too_short(high):
        return high
    while high - low > TOLERANCE:
        middle = (low + high) / 2
        low, high = (middle, high) if too_short(middle) else (low, middle)
    return high


def _notes(name: str, fit: Fit) -> list[str]:
    unseen = [f"{name}.{key}: nothing of it could be seen" for key, value in fit.values.items() if value == 0]
    return unseen + [f"{name}.{a} and {name}.{b} could not be told apart" for a, b in fit.confounded]
