"""The parts of a run for a loop of your own, in a script or a notebook.

    with rlstack.Session(config) as session:
        for step in range(config.schedule.num_steps):
            groups = session.sample(session.prompts.take(step, config.batch.prompts_per_step))
            scored = session.score(groups)
            credit = rlstack.assign(scored, config.objective, seed=0, step=step)
            metrics = session.train_step(credit.examples) | credit.metrics()
            if session.version % 5 == 0:
                metrics |= session.sync()
            session.log(metrics, scored)

What `rlstack.run` adds to that is in rlstack/train.py: side by side instead of one after the other, held-out
evaluation, checkpoints, and going on after a process was lost. In cells of a notebook, start() and close()
stand for the context.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from rlstack.config.schedule_words import WITH_GENERATOR
from rlstack.config.schema import RunConfig
from rlstack.credit.cut_off import as_trained
from rlstack.credit.metrics import pair_yield, rollout_metrics
from rlstack.data.load import max_prompt_tokens as longest_prompt
from rlstack.data.records import Prompt, RolloutGroup, ScoredGroup, TrainingExample
from rlstack.data.samples import sample_rows
from rlstack.evaluation.evaluator import Evaluator
from rlstack.losses.build import Loss
from rlstack.orchestration.engine_group import EngineGroup
from rlstack.orchestration.engine_seat import Sampling
from rlstack.orchestration.pending import PendingGroups
from rlstack.orchestration.policy_group import PolicyGroup
from rlstack.orchestration.team import Team, assembled
from rlstack.running import prepare
from rlstack.telemetry.recorder import Recorder
from rlstack.telemetry.run_dir import folder_of


class Session:
    """Policy, engines and rewards that run, from start() to close(); the folder of a run gets what is logged.

    Attributes:
        config: the settings, with the names of what was given.
        prompts: the training prompts; `prompts.take(step, n)` are those of a step.
        held_out: the prompts of evaluation.tasks.
    """

    def __init__(
        self,
        config: RunConfig,
        *,
        rewards: Mapping[str, Any] | None = None,
        loss: Loss | type[Loss] | None = None,
        max_prompt_tokens: int | None = None,
    ) -> None:
        """rewards, loss: see rlstack.run.

        max_prompt_tokens: of prompts of your own that sample() will get, where one is longer than those of
            data.tasks and evaluation.tasks.

        Raises ConfigError for whatever can be refused.
        """
        planned = prepare(config, rewards=rewards, loss=loss)
        self.config, self._own = planned.config, planned.own
        self.prompts, self.held_out = planned.read_prompts()
        self._max_prompt_tokens = max(longest_prompt(self.prompts, self.held_out), max_prompt_tokens or 0)
        self._open = ExitStack()
        self._recorder: Recorder | None = None
        self._team: Team | None = None
        self._num_asked = 0  # calls of sample(), each of which gets seeds of its own
        self._num_logged = 0
        self.version = 0  # optimiser steps that the policy has taken

    def start(self) -> Session:
        """Start every process; see rlstack.train.train for what it raises."""
        with ExitStack() as opened:
            self._recorder = opened.enter_context(Recorder(self.config, can_resume=False))
            probe = self.prompts.take(0, self.config.batch.prompts_per_step)[0].token_ids.tolist()
            team = assembled(
                self.config,
                self._recorder,
                probe=probe,
                own=self._own,
                max_prompt_tokens=self._max_prompt_tokens,
            )
            self._team = opened.enter_context(team)
            self._recorder.evaluated({})  # the first step's time begins here
            self._open = opened.pop_all()
        return self

    def close(self) -> None:
        """End every process; the run's folder gets its summary and report."""
        self._open.close()

    def __enter__(self) -> Session:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.__exit__(kind, error, trace)

    @property
    def team(self) -> Team:
        assert self._team is not None, "start() comes first"
        return self._team

    @property
    def policy(self) -> PolicyGroup:
        return self.team.policy

    @property
    def engines(self) -> EngineGroup:
        return self.team.engines

    @property
    def folder(self) -> Path:
        """Where everything is that the run leaves."""
        return folder_of(self.config)

    def sample(
        self,
        prompts: Sequence[Prompt],
        *,
        n: int | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
    ) -> list[RolloutGroup]:
        """A group of n rollouts for each prompt, from the version that the engines hold; waits for all.

        What is not given is as config.rollout says. The same calls in the same order give the same rollouts.

        Raises ConfigError for a prompt that is longer than the engines were started for, RoleError if an
        engine is lost once too often.
        """
        rollout = self.config.rollout
        sampling = Sampling(
            n=rollout.n if n is None else n,
            temperature=rollout.temperature if temperature is None else temperature,
            top_p=rollout.top_p if top_p is None else top_p,
        )
        places = [(self._num_asked, i) for i in range(len(prompts))]
        self._num_asked += 1
        with self._recording.phase("generate_wait"):
            answers = self.engines.submit(prompts, sampling, stream="session", places=places)
            return PendingGroups(prompts, answers, attend=self.engines.attend, step=self.version).result()

    def score(self, groups: Sequence[RolloutGroup]) -> list[ScoredGroup]:
        """The groups in the order given, each scored by its own task's reward."""
        with self._recording.phase("reward"):
            return self.team.rewards.score(groups)

    def train_step(self, examples: Sequence[TrainingExample]) -> dict[str, Any]:
        """One optimiser step on `examples`, whose rollouts are of the engines' version; its metrics.

        Without an example the weights stay, and the step counts all the same. Rollouts may be as old as
        schedule.sync_interval allows; null allows any age.

        Raises RoleError if a rank fails, which is also how it refuses rollouts that are too old.
        """
        assert self.engines.version is not None, "a session's engines all hold the same"
        with self._recording.phase("train"):
            metrics = self.policy.train_step(examples, version=self.engines.version)
        self.version += 1
        return metrics

    def sync(self) -> dict[str, Any]:
        """Bring the policy's weights to the engines, verified; and to the reference, as
        schedule.reference_sync = with_generator has it. The metrics sync/*.

        Raises TransferError or RoleError.
        """
        with self._recording.phase("sync"):
            metrics = self.team.weight_sync.run(self.version)
            if self.config.schedule.reference_sync == WITH_GENERATOR:
                self.sync_reference()
        return metrics

    def sync_reference(self) -> None:
        """Make the policy's weights the reference's."""
        self.policy.sync_reference(self.version)

    def evaluate(self) -> dict[str, Any]:
        """How well the engines' version answers the held-out prompts: the metrics eval/*; {} without any.

        They are logged, and their time is not that of a step.
        """
        with self._recording.phase("evaluate"):
            metrics = Evaluator(self.held_out, self.engines, self.team.rewards, self.config).run()
        self._recording.evaluated(metrics)
        return metrics

    def log(self, metrics: Mapping[str, Any], scored: Sequence[ScoredGroup] = ()) -> None:
        """One row of metrics.jsonl, and one line on the terminal, for all since the last one.

        The names are those of rlstack/telemetry/metrics.py; your own begin with custom/.

        scored: the step's groups, which go to rollouts.jsonl, and their metrics to the row.

        Raises ValueError for other names.
        """
        self._num_logged += 1
        if scored:
            groups = [each.group for each in scored]
            of_rollouts = rollout_metrics(groups, self._num_logged - 1) | self.team.rewards.metrics(scored)
            limit = self.config.rollout.max_new_tokens
            compared = as_trained(scored, self.config.objective, max_new_tokens=limit)
            metrics = of_rollouts | pair_yield(compared) | dict(metrics)
            self._recording.samples(sample_rows(scored, self.config.telemetry))
        self._recording.step(self._num_logged, metrics)

    def export(self) -> Path:
        """Write the policy as a Hugging Face folder; where it is."""
        self.policy.export(self._recording.model)
        return self._recording.model

    @property
    def _recording(self) -> Recorder:
        assert self._recorder is not None, "start() comes first"
        return self._recorder
