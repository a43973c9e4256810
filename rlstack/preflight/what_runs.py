"""The run that would start, in one paragraph."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from rlstack.config.parallel import num_policy_ranks
from rlstack.config.schema import RunConfig
from rlstack.config.weight_index import num_parameters
from rlstack.preflight.planned import Planned
from rlstack.telemetry.run_dir import CONFIG, folder_of


def what_runs(planned: Planned) -> str:
    """Model, objective, data, layout and folder of a run in which the checks have found nothing."""
    config = planned.config
    return " ".join(
        [
            f"Nothing to refuse: {config.run.name} would train {config.policy.model} "
            f"({num_parameters(Path(config.policy.model)) / 1e6:.3g} M parameters) with "
            f"{config.objective.loss or config.objective.name.value} for {config.schedule.num_steps} "
            f"steps of {config.batch.prompts_per_step} prompts x {config.rollout.n} rollouts, "
            f"{_interval(config.schedule.sync_interval)}.",
            _data(planned),
            f"The policy has {_count(num_policy_ranks(config.policy), 'rank')}; "
            f"{_count(config.rollout.engines, 'engine')} of {_count(config.rollout.tensor_parallel, 'rank')} "
            f"would sample, on {config.cluster.address or 'this machine'}.",
            _folder(config, resume=planned.resume),
        ]
    )


def _interval(interval: int | str | None) -> str:
    if interval is None:
        return "offline"
    return (
        "with a sync interval that adapts" if isinstance(interval, str) else f"with a sync every {interval}"
    )


def _data(planned: Planned) -> str:
    training, held_out = planned.read_prompts()
    tasks = ", ".join(
        f"{task.name} ({task.reward}, {training.sizes[task.name]} prompts)"
        for task in planned.config.data.tasks
    )
    counts = Counter(prompt.task for prompt in held_out)
    held = ", ".join(f"{name} ({count} prompts)" for name, count in counts.items())
    return f"Its tasks are {tasks}; held out: {held or 'none'}."


def _folder(config: RunConfig, *, resume: bool) -> str:
    folder = folder_of(config)
    if not folder.exists():
        return f"Its files would be in {folder}."
    if resume and (folder / CONFIG).exists():
        return f"It would go on with the run in {folder}."
    return f"Its files would be in {folder}; the run that is there would be moved aside."


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
