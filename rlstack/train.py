"""The loop: prompts -> rollouts -> rewards -> credit -> micro-batches -> optimiser step -> weight sync."""

from __future__ import annotations

from rlstack.config.schema import RunConfig
from rlstack.credit.assign import assign
from rlstack.credit.pair_yield import pair_yield
from rlstack.data.load import load_prompts
from rlstack.data.samples import sample_rows
from rlstack.evaluation.evaluator import Evaluator
from rlstack.orchestration.adaptive_schedule import build_schedule
from rlstack.orchestration.cluster import Cluster
from rlstack.orchestration.stream import RolloutStream
from rlstack.orchestration.sync_rounds import SyncRounds
from rlstack.orchestration.weight_sync import WeightSync
from rlstack.rewards.router import Rewards
from rlstack.rollout.dynamics import dynamics
from rlstack.rollout.metrics import rollout_metrics
from rlstack.telemetry.alarms import StoppedByAlarm
from rlstack.telemetry.recorder import Recorder


def train(config: RunConfig) -> None:
    """Run what `config` (validated) describes; everything it leaves is in `run.dir`/`run.name`.

    Step t turns version t of the policy into t + 1. Its rollouts were written by `schedule.version_for(t)`,
    which is all that tells offline (s = None), semi-online and online (s = 1) training apart.

    Raises:
        ConfigError: the data, or the log of a run to replay, cannot be used; no process has been started.
        StoppedByAlarm: an alarm whose action is stop was raised; the model has been exported.
        RoleError: a process failed, died or did not answer within its limit; all processes have ended.
    """
    schedule = build_schedule(config.schedule)
    prompts, held_out = load_prompts(config)

    with (
        Recorder(config) as recorder,
        Cluster(config, recorder.logs) as cluster,
        Rewards(config, cluster.start_reward_models()) as rewards,
    ):
        with recorder.starting("policy and engines"):
            policy, engines = cluster.launch()
            probe = prompts.take(0, 1)[0].token_ids
            weight_sync = WeightSync(policy, engines, config, host=cluster.host, probe=probe)
        rollouts = RolloutStream(prompts, engines, rewards, schedule, config)
        syncs = SyncRounds(weight_sync, rollouts, schedule, config, phase=recorder.phase)
        evaluator = Evaluator(held_out, engines, rewards, config)

        with recorder.phase("evaluate"):
            recorder.evaluated(evaluator.run())
        recorder.interval(schedule.decide(0, recorder.steps))
        rollouts.admit(version=0)

        for step in range(schedule.num_steps):
            with recorder.phase("generate_wait"):
                groups = rollouts.take(step)
            with recorder.phase("reward"):
                scored = rollouts.scores()
                credit = assign(scored, config.objective, seed=config.run.seed, step=step)
            metrics = rollout_metrics(groups, step) | rewards.metrics(scored) | credit.metrics()
            metrics |= pair_yield(scored) | dynamics(scored, credit.examples) | schedule.metrics(step)
            with recorder.phase("train"):
                metrics |= policy.train_step(credit.examples, version=schedule.version_for(step))
            version = step + 1
            if schedule.reference_syncs_at(version):
                policy.sync_reference(version)
            metrics |= syncs.end_due(version)
            if schedule.syncs_at(version):
                syncs.begin(version)
                evaluation = evaluator.start() if schedule.evaluates_at(version) else None
                recorder.interval(schedule.decide(version, [*recorder.steps, metrics]))
                rollouts.admit(version=version)
                metrics |= syncs.end_due(version)
                if evaluation is not None:
                    with recorder.phase("evaluate"):
                        metrics |= evaluation.result()
            recorder.samples(sample_rows(scored))
            verdict = recorder.step(version, metrics)
            policy.scale_lr(verdict.lr_factor)
            if verdict.stop:
                policy.export(recorder.model)
                raise StoppedByAlarm(verdict.stop)

        syncs.end()
        policy.export(recorder.model)
        if held_out and schedule.generator_version_at(schedule.num_steps) < schedule.num_steps:
            with recorder.phase("sync"):
                weight_sync.run(schedule.num_steps)  # the final evaluation is of the final weights
        with recorder.phase("evaluate"):
            recorder.evaluated(evaluator.run())
