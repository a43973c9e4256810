"""The loop: prompts -> rollouts -> rewards -> credit -> micro-batches -> optimiser step -> weight sync."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from rlstack.config.own_code import OwnCode
from rlstack.config.schema import RunConfig
from rlstack.credit.assign import assign
from rlstack.credit.pair_yield import pair_yield
from rlstack.data.load import load_prompts, max_prompt_tokens
from rlstack.data.records import Prompt
from rlstack.data.samples import sample_rows
from rlstack.data.sampling import PromptSampler
from rlstack.errors import ConfigError
from rlstack.evaluation.evaluator import Evaluator
from rlstack.orchestration.adaptive_schedule import build_schedule
from rlstack.orchestration.contents import contents_of
from rlstack.orchestration.interrupts import Interrupts
from rlstack.orchestration.places import Place, place_to_resume
from rlstack.orchestration.role_errors import BackToCheckpoint, RoleError
from rlstack.orchestration.saving import Saver
from rlstack.orchestration.schedule import Schedule
from rlstack.orchestration.stream import RolloutStream
from rlstack.orchestration.sync_rounds import SyncRounds
from rlstack.orchestration.team import Team, assembled
from rlstack.rollout.dynamics import dynamics
from rlstack.rollout.metrics import rollout_metrics
from rlstack.telemetry.alarms import StoppedByAlarm
from rlstack.telemetry.recorder import Recorder


def train(
    config: RunConfig,
    *,
    resume: bool = False,
    own: OwnCode | None = None,
    prompts: tuple[PromptSampler, Sequence[Prompt]] | None = None,
) -> None:
    """Run what `config` (validated) describes; everything it leaves is in `run.dir`/`run.name`.

    Step t turns version t of the policy into t + 1. Its rollouts were written by `schedule.version_for(t)`,
    which is all that tells offline (s = None), semi-online and online (s = 1) training apart.

    resume: go on from the newest checkpoint of the run in that folder, from its start if there is none yet.
    own: what the settings name of the user's own code.
    prompts: those of training and the held-out ones, where they have been loaded already.

    Raises:
        ConfigError: the data, the log of a run to replay, or the run to resume cannot be used.
        StoppedByAlarm: an alarm whose action is stop was raised; the model has been exported.
        RoleError: a process failed, died or did not answer within its limit; all processes have ended.
    """
    schedule = build_schedule(config.schedule)
    training, held_out = prompts or load_prompts(config)
    inputs = contents_of(config)
    earlier = place_to_resume(config, inputs=inputs) if resume else None
    interrupts = Interrupts(config.checkpoint.interrupt_timeout_s)
    with interrupts.handled(), Recorder(config, resume=earlier is not None, inputs=inputs) as recorder:
        saver = Saver(config, schedule, recorder)
        if earlier is not None:
            saver.go_to(earlier)
        place = earlier or Place()
        probe = training.take(0, 1)[0].token_ids
        longest = max_prompt_tokens(training, held_out)
        with assembled(
            config, recorder, probe=probe, own=own or OwnCode(), max_prompt_tokens=longest
        ) as team:
            while True:
                try:
                    return _run(
                        place, config, schedule, training, held_out, team, recorder, saver, interrupts
                    )
                except BackToCheckpoint as lost:
                    place = _back(lost, team, recorder, saver, interrupts)


def _back(
    lost: BackToCheckpoint, team: Team, recorder: Recorder, saver: Saver, interrupts: Interrupts
) -> Place:
    """Where the run goes on after its policy was lost. Raises RoleError if there is no place any more."""
    interrupts.settle()
    with recorder.starting("the policy again"):
        team.rebuild_policy(lost)
    try:
        return saver.go_back()
    except ConfigError as error:
        raise RoleError(f"{lost.reason}; the run cannot go back: {error}") from error


def _run(
    place: Place,
    config: RunConfig,
    schedule: Schedule,
    prompts: PromptSampler,
    held_out: Sequence[Prompt],
    team: Team,
    recorder: Recorder,
    saver: Saver,
    interrupts: Interrupts,
) -> None:
    """From `place` to the end."""
    policy, engines, rewards, first = team.policy, team.engines, team.rewards, place.state
    rollouts = RolloutStream(
        prompts, engines, rewards, schedule, config, first_step=first.step, kept=place.rollouts
    )
    syncs = SyncRounds(team.weight_sync, rollouts, schedule, config, phase=recorder.phase, settled=first.sync)
    evaluator = Evaluator(held_out, engines, rewards, config)

    team.go_to(place)
    with recorder.phase("evaluate"):
        recorder.evaluated(evaluator.run() if place.checkpoint is None else {})
    if place.checkpoint is None:
        recorder.interval(schedule.decide(0, recorder.history.steps))
    rollouts.admit(version=first.served_version)

    if schedule.save_every is not None:
        interrupts.defer(recorder.note)
    for step in range(first.step, schedule.num_steps):
        with recorder.phase("generate_wait"):
            groups = rollouts.take(step)
        with recorder.phase("reward"):
            scored = rollouts.scores()
            credit = assign(
                scored,
                config.objective,
                seed=config.run.seed,
                step=step,
                max_new_tokens=config.rollout.max_new_tokens,
            )
        metrics = rollout_metrics(groups, step) | rewards.metrics(scored) | credit.metrics()
        metrics |= pair_yield(credit.groups) | dynamics(scored, credit.examples) | schedule.metrics(step)
        with recorder.phase("train"):
            metrics |= policy.train_step(credit.examples, version=schedule.version_for(step))
        version = step + 1
        if schedule.reference_syncs_at(version):
            policy.sync_reference(version)
        metrics |= syncs.end_due(version)
        if schedule.syncs_at(version):
            syncs.begin(version)
            evaluation = evaluator.start() if schedule.evaluates_at(version) else None
            recorder.interval(schedule.decide(version, [*recorder.history.steps, metrics]))
            rollouts.admit(version=version)
            metrics |= syncs.end_due(version)
            if evaluation is not None:
                with recorder.phase("evaluate"):
                    metrics |= evaluation.result()
        recorder.samples(sample_rows(scored))
        verdict = recorder.step(version, metrics)
        policy.scale_lr(verdict.lr_factor)
        if verdict.stop:
            saver.finish(policy)
            policy.export(recorder.model)
            raise StoppedByAlarm(verdict.stop)
        saver.save_due(version, policy, rollouts, syncs)
        if interrupts.is_asked:
            saver.save_now(version, policy, rollouts, syncs)
            raise KeyboardInterrupt

    try:
        interrupts.settle()
        syncs.end()
        policy.export(recorder.model)
        if held_out and schedule.generator_version_at(schedule.num_steps) < schedule.num_steps:
            with recorder.phase("sync"):
                team.weight_sync.run(schedule.num_steps)  # the final evaluation is of the final weights
        with recorder.phase("evaluate"):
            recorder.evaluated(evaluator.run())
    except KeyboardInterrupt:
        with suppress(RoleError):
            saver.finish(policy)
        raise
    saver.finish(policy)
