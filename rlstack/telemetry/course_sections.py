"""The sections of a run's report on what it learnt, and from what; None where there is nothing to tell."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rlstack.telemetry.html_page import Figure, Section, figure, side_by_side, text
from rlstack.telemetry.run_figures import WINDOW, Panel, evaluated, lines
from rlstack.telemetry.run_record import RunRecord

Row = Mapping[str, Any]

REWARD = Panel("Reward", "mean of the rollouts", {"reward": "reward/mean"})
ACCURACY = Panel("Held-out accuracy", "share of correct answers", {"accuracy": "eval/accuracy"})
COURSE = (
    Panel("Entropy of the policy", "nats per token", {"entropy": "policy/entropy"}),
    Panel("Rollout length", "tokens", {"mean": "rollout/length_mean"}),
    Panel(
        "Generator against trainer",
        "nats, largest of the step",
        {"mismatch": "mismatch/logprob_abs_max", "drift": "drift/logprob_abs_max"},
        logarithmic=True,
    ),
    Panel("Time per step", "seconds", {"time": "time/step_s"}),
)
SIGNAL = (
    Panel("DPO margin", "beta x difference of log-ratios", {"margin": "dpo/margin"}),
    Panel("DPO accuracy", "share of pairs, margin > 0", {"accuracy": "dpo/accuracy"}),
    Panel("Pair yield", "share of the prompts", {"yield": "pairs/yield"}),
    Panel("KL to the reference", "nats per token", {"KL": "grpo/kl"}),
    Panel(
        "Length by verdict",
        "tokens",
        {"correct": "rollout/length_correct_mean", "incorrect": "rollout/length_incorrect_mean"},
    ),
    Panel(
        "Length in pairs",
        "tokens",
        {"chosen": "rollout/length_chosen_mean", "rejected": "rollout/length_rejected_mean"},
    ),
    Panel(
        "Logprob in pairs",
        "nats per rollout",
        {"chosen": "policy/chosen_logprob", "rejected": "policy/rejected_logprob"},
    ),
    Panel("Rollouts cut off", "share of the rollouts", {"cut off": "rollout/cut_off"}),
    Panel("Loss", "mean over the step's examples", {"loss": "loss/total"}),
    Panel("Gradient norm", "before clipping", {"norm": "grad_norm"}),
)


def course(run: RunRecord) -> Section | None:
    """What to look at first."""
    figures = [lines(run.steps, REWARD), evaluated(run.evaluations(), ACCURACY)]
    note = (
        f"Thin lines: each step. Thick lines: means over the last {WINDOW} steps. Mismatch: the generator's "
        "logprobs against the trainer's for the same version. Drift: against those of the policy as it is."
    )
    return _section("Course", [*figures, *(lines(run.steps, panel) for panel in COURSE)], note)


def signal(run: RunRecord) -> Section | None:
    """What the policy was trained on, and how it took it."""
    own = [
        Panel(name, "mean of the step", {name: metric})
        for name, metric in _named(run.steps, "custom/", "").items()
    ]
    moving = (panel for panel in (*SIGNAL, *own) if _moves(run.steps, panel))
    return _section("Training signal", [lines(run.steps, panel) for panel in moving])


def tasks(run: RunRecord) -> Section | None:
    """What the course does not have: reward and accuracy of each of several tasks, rewards held out."""
    evaluations = run.evaluations()
    rewards, accuracies, held_out = (
        _named(*each)
        for each in (
            (run.steps, "reward/mean/", ""),
            (evaluations, "eval/", "/accuracy"),
            (evaluations, "eval/", "/reward"),
        )
    )
    # Of a task with verdicts the mean reward is the accuracy.
    graded = {task: name for task, name in held_out.items() if task not in accuracies}
    figures = [
        *(
            lines(run.steps, Panel(f"Reward of {task}", "mean of its rollouts", {task: name}))
            for task, name in rewards.items()
            if len(rewards) > 1
        ),
        evaluated(evaluations, ACCURACY._replace(series=accuracies)) if len(accuracies) > 1 else None,
        *(
            evaluated(evaluations, Panel(f"Held-out reward of {task}", "mean of the answers", {task: name}))
            for task, name in graded.items()
        ),
    ]
    return _section("Tasks", figures)


def _named(rows: Iterable[Row], prefix: str, suffix: str) -> dict[str, str]:
    """The metrics that are called so, by the middle of their names, which is a task's or the user's."""
    names = sorted({name for row in rows for name in row if row[name] is not None})
    return {
        name[len(prefix) : len(name) - len(suffix)]: name
        for name in names
        if name.startswith(prefix) and name.endswith(suffix) and len(name) > len(prefix + suffix)
    }


def _moves(rows: Sequence[Row], panel: Panel) -> bool:
    """Whether it was anything but 0 once: a loss without DPO, rollouts that are never cut off."""
    return any(row.get(metric) for row in rows for metric in panel.series.values())


def _section(title: str, figures: Iterable[Figure | None], note: str = "") -> Section | None:
    drawn = [figure(each) for each in figures if each is not None]
    if not drawn:
        return None
    return Section(title, [*([text(note)] if note else []), side_by_side(drawn)])
