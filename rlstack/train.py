"""The loop: prompts -> rollouts -> rewards -> credit -> micro-batches -> optimiser step -> weight sync."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from rlstack.config.own_code import OwnCode
from rlstack.config.schema import RunConfig
from rlstack.credit.assign import assign
from rlstack.credit.metrics import dynamics, pair_yield, rollout_metrics
from rlstack.data.load import load_prompts, max_prompt_tokens
from rlstack.data.records import Prompt, ScoredGroup
from rlstack.data.samples import sample_rows
from rlstack.data.sampling import PromptSampler
from rlstack.errors import ConfigError
from rlstack.evaluation.evaluator import Evaluator
from rlstack.orchestration.adaptive_schedule import build_schedule
from rlstack.orchestration.contents import contents_of
from rlstack.orchestration.interrupts import Interrupts
from rlstack.orchestration.places import Place, place_to_resume
from rlstack.orchestration.roles import BackToCheckpoint, RoleError
from rlstack.orchestration.saving import Saver
from rlstack.orchestration.schedule import Schedule
from rlstack.orchestration.stream import RolloutStream
from rlstack.orchestration.sync_rounds import SyncRounds
from rlstack.orchestration.team import Team, assembled
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
        probe = training.take(0, 1)[0].token_ids.tolist()
        longest = max_prompt_tokens(training, held_out)
        with assembled(
            config, recorder, probe=probe, own=own or OwnCode(), max_prompt_tokens=longest
        ) as team:
            loop = _Loop(
                config=config,
                schedule=schedule,
                training=training,
                held_out=held_out,
                team=team,
                recorder=recorder,
                saver=saver,
                interrupts=interrupts,
            )
            place = earlier or Place()
            while True:
                try:
                    return loop.run(place)
                except BackToCheckpoint as lost:
                    place = loop.back(lost)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Loop:
    config: RunConfig
    schedule: Schedule
    training: PromptSampler
    held_out: Sequence[Prompt]
    team: Team
    recorder: Recorder
    saver: Saver
    interrupts: Interrupts

    def back(self, lost: BackToCheckpoint) -> Place:
        """Where the run goes on after its policy was lost. Raises RoleError if there is no place any more."""
        self.interrupts.settle()
        while True:
            with self.recorder.starting("the policy again"):
                self.team.rebuild_policy(lost)
            try:
                return self.saver.go_back(self.team.policy)
            except BackToCheckpoint as another:
                lost = another
            except ConfigError as error:
                raise RoleError(f"{lost.reason}; the run cannot go back: {error}") from error

    def run(self, place: Place) -> None:
        """From `place` to the end; from an older place if the ranks find its checkpoint damaged."""
        team, schedule, config, recorder = self.team, self.schedule, self.config, self.recorder
        place = self.saver.whole(place, team.policy)
        first = place.state
        rollouts = RolloutStream(
            self.training,
            team.engines,
            team.rewards,
            schedule,
            config,
            first_step=first.step,
            kept=place.rollouts,
            phase=recorder.phase,
        )
        syncs = SyncRounds(
            team.weight_sync, rollouts, schedule, config, phase=recorder.phase, settled=first.sync
        )
        evaluator = Evaluator(self.held_out, team.engines, team.rewards, config)

        team.go_to(place)
        self.saver.go_on()
        with recorder.phase("evaluate"):
            recorder.evaluated(evaluator.run() if place.checkpoint is None else {})
        if place.checkpoint is None:
            recorder.interval(schedule.decide(0, recorder.history.steps))
        rollouts.admit(version=first.served_version)

        if schedule.save_every is not None:
            self.interrupts.defer(recorder.note)
        for step in range(first.step, schedule.num_steps):
            scored, metrics = self._train(step, rollouts)
            metrics |= self._sync(step + 1, metrics, rollouts, syncs, evaluator)
            recorder.samples(sample_rows(scored, self.config.telemetry))
            self._end_step(step + 1, metrics, rollouts, syncs)
        self._end(syncs, evaluator)

    def _train(self, step: int, rollouts: RolloutStream) -> tuple[Sequence[ScoredGroup], dict[str, Any]]:
        """The optimiser step on the rollouts of `step`; these with their scores, and its metrics."""
        config, recorder = self.config, self.recorder
        scored = rollouts.take(step)
        with recorder.phase("reward"):
            credit = assign(
                scored,
                config.objective,
                seed=config.run.seed,
                step=step,
                max_new_tokens=config.rollout.max_new_tokens,
            )
        metrics = (
            rollout_metrics([each.group for each in scored], step)
            | self.team.rewards.metrics(scored)
            | credit.metrics()
        )
        metrics |= pair_yield(credit.groups) | dynamics(scored, credit.examples) | self.schedule.metrics(step)
        with recorder.phase("train"):
            version = self.schedule.version_for(step)
            metrics |= self.team.policy.train_step(credit.examples, version=version)
        return scored, metrics

    def _sync(
        self,
        version: int,
        metrics: Mapping[str, Any],
        rollouts: RolloutStream,
        syncs: SyncRounds,
        evaluator: Evaluator,
    ) -> dict[str, Any]:
        """Sync and evaluate as is due once the policy is at `version`, and return the metrics of that.

        metrics: of the step that led there.
        """
        schedule, recorder = self.schedule, self.recorder
        if schedule.reference_syncs_at(version):
            self.team.policy.sync_reference(version)
        found = dict(syncs.end_due(version))
        if schedule.syncs_at(version):
            syncs.begin(version)
            evaluation = evaluator.start() if schedule.evaluates_at(version) else None
            recorder.interval(schedule.decide(version, [*recorder.history.steps, {**metrics, **found}]))
            rollouts.admit(version=version)
            found |= syncs.end_due(version)
            if evaluation is not None:
                with recorder.phase("evaluate"):
                    found |= evaluation.result()
        return found

    def _end_step(
        self, version: int, metrics: Mapping[str, Any], rollouts: RolloutStream, syncs: SyncRounds
    ) -> None:
        """Log the step, heed its alarms, and save what is due.

        Raises StoppedByAlarm; KeyboardInterrupt once the step is saved, if the run was asked to end.
        """
        policy, saver = self.team.policy, self.saver
        verdict = self.recorder.step(version, metrics)
        policy.scale_lr(verdict.lr_factor)
        if verdict.stop:
            saver.finish(policy)
            policy.export(self.recorder.model)
            raise StoppedByAlarm(verdict.stop)
        saver.save_due(version, policy, rollouts, syncs)
        if self.interrupts.is_asked:
            saver.save_now(version, policy, rollouts, syncs)
            raise KeyboardInterrupt

    def _end(self, syncs: SyncRounds, evaluator: Evaluator) -> None:
        """Export the model, and evaluate it."""
        num_steps, policy = self.schedule.num_steps, self.team.policy
        try:
            self.interrupts.settle()
            syncs.end()
            policy.export(self.recorder.model)
            if self.held_out and self.schedule.generator_version_at(num_steps) < num_steps:
                with self.recorder.phase("sync"):
                    self.team.weight_sync.run(num_steps)  # the final evaluation is of the final weights
            with self.recorder.phase("evaluate"):
                self.recorder.evaluated(evaluator.run())
        except KeyboardInterrupt:
            with suppress(RoleError):
                self.saver.finish(policy)
            raise
        self.saver.finish(policy)
