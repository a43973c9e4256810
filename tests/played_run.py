"""A run's folder as a Recorder leaves it, without engines and ranks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rlstack.config.schema import RunConfig
from rlstack.telemetry import nvml, timeline
from rlstack.telemetry.nvml import Sample
from rlstack.telemetry.recorder import Recorder

NUM_STEPS = 4
N = 2  # rollouts of a group

HOSTILE = "</script><img src=x onerror=\"document.body.dataset.hostile='ran'\"><b>&amp;'\" \u202eü🙂"
LONG = "x" * 30_000


def make_run(
    folder: Path, *, gpus: bool = False, error: Exception | None = None, name: str = "a <run>"
) -> Path:
    """The folder of a run of NUM_STEPS steps; with `error`, of one that failed of it after them."""
    config = RunConfig()
    config.run.dir, config.run.name = str(folder), name
    config.policy.model, config.schedule.num_steps, config.rollout.n = "/model", NUM_STEPS, N
    timeline.take()
    nvml.take()
    with Recorder(config) as recorder:
        recorder.evaluated({"eval/accuracy": 0.25, "eval/accuracy_stderr": 0.1, "eval/version": 0})
        for version in range(1, NUM_STEPS + 1):
            _one_step(recorder, version, gpus=gpus)
        if error is not None:
            raise error
    return folder / name


def _one_step(recorder: Recorder, version: int, *, gpus: bool) -> None:
    with recorder.phase("generate_wait"), timeline.span("generate", role="engine 0"):
        pass
    with recorder.phase("reward"), timeline.span("score", role="rewards math"):
        recorder.samples(rollouts_of(version))
    waits = timeline.span("exchange", role="policy rank 1", reason="pipeline_bubble")
    with recorder.phase("train"), timeline.span("train", role="policy rank 0"), waits:
        pass
    metrics = {"reward/mean": version / 10, "mismatch/logprob_abs_max": 1e-6, "policy/entropy": 0.5}
    metrics |= {"tokens/trained": 100, "flops/train": 1e12, "time/update_s": 0.5}
    if version % 2 == 0:
        metrics |= {"sync/version": version, "sync/bytes": 4_000_000}
        metrics |= {"sync/pause_s": 0.05, "sync/receive_s": 0.04}
    if gpus:
        nvml.add([Sample("engine 0", "0", timeline.now_s(), 300.0, 0.5, 20.0, 55.0)])
    recorder.step(version, metrics)


def rollouts_of(step: int) -> Iterator[dict[str, Any]]:
    """Rows of rollouts.jsonl: a group of sums with a right and a wrong answer, and one of notes."""
    sums = {"task": "sums", "row": step, "problem": f"{step} + {step}", "answer": str(2 * step)}
    yield _row(step, **sums, text=f"it is {2 * step}", reward=1.0)
    yield _row(step, **sums, text=HOSTILE if step == 2 else f"it is {3 * step}", reward=0.0)
    notes = {"task": "notes", "row": step, "problem": HOSTILE, "answer": None}
    yield _row(step, **notes, text=f"note {step}", reward=0.25 * step)
    late = {"reward": None, "outcome": "timeout"} if step == 3 else {"reward": -1.5}
    yield _row(step, **notes, text=LONG, finished=False, **late)


def _row(
    step: int, *, text: str, outcome: str = "ok", finished: bool = True, **others: Any
) -> dict[str, Any]:
    given = {"text": text, "outcome": outcome, "finished": finished}
    return {"step": step, "version": step - 1, "length_tokens": len(text), **others, **given}
