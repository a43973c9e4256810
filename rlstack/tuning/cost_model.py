"""Step time, idle time and throughput of a setup from what its parts cost. Pure; takes milliseconds."""

from __future__ import annotations

from collections.abc import Sequence

from rlstack.tuning.loop_jobs import LoopJobs
from rlstack.tuning.parts import Parts
from rlstack.tuning.prediction import BUBBLE, POLICY, SYNC, Prediction, RoleTime, engine_name
from rlstack.tuning.setup import Setup, steady_steps
from rlstack.tuning.simulate import Job, Span, role_times, simulate


def predict(parts: Parts, setup: Setup) -> Prediction:
    """What a run of `setup` would take if its parts cost what `parts` says.

    The loop's jobs (loop_jobs) on one clock (simulate); nothing in it is by chance.
    """
    loop = LoopJobs(parts, setup)
    spans = simulate(loop.jobs, parts.sharing)
    ends_s = [spans[place].end_s for place in loop.ends]
    steady = steady_steps(setup)
    roles = role_times(loop.jobs, spans)
    prompts = setup.num_steps * setup.prompts_per_step
    trained_tokens = setup.prompts_per_step * parts.workload.trained_tokens_per_prompt
    roles[POLICY] = _with_bubble(roles[POLICY], setup.layout.bubble_share(trained_tokens))
    first_s = ends_s[steady.start - 1] if steady.start else 0.0
    return Prediction(
        num_steps=setup.num_steps,
        step_s=(ends_s[steady.stop - 1] - first_s) / len(steady),
        wall_s=max(span.end_s for span in spans),
        roles=roles,
        sync_s=sum(spans[place].end_s - spans[place].start_s for place in loop.syncs),
        sync_pause_s=_pause_s(loop.jobs, spans, setup),
        tokens_generated=prompts * setup.n * parts.workload.mean_answer_tokens,
        tokens_trained=prompts * parts.workload.trained_tokens_per_prompt,
    )


def _with_bubble(time: RoleTime, share: float) -> RoleTime:
    """A pipeline stage's time: in `share` of each training step it waits for the others."""
    bubble_s = time.busy_s * share
    waiting_s = {**time.waiting_s, BUBBLE: bubble_s} if share else time.waiting_s
    return RoleTime(busy_s=time.busy_s - bubble_s, waiting_s=waiting_s, idle_s=time.idle_s)


def _pause_s(jobs: Sequence[Job], spans: Sequence[Span], setup: Setup) -> float:
    """How long one engine stood still for syncs: all of a sync, or only landing where it was begun ahead."""
    pauses = [
        span.end_s - span.start_s
        for job, span in zip(jobs, spans, strict=True)
        if job.reason == SYNC and (not setup.syncs_beside or job.role == engine_name(0))
    ]
    return sum(pauses)
