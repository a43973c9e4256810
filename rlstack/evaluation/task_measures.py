"""From the scored answers of one task, or of several, to the measures that are reported. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from rlstack.config.schema import Selection
from rlstack.evaluation.answers import AnsweredPrompt
from rlstack.evaluation.measures import ks_for, majority_vote, over_seeds, pass_at_k
from rlstack.evaluation.votes import vote_of
from rlstack.rewards.metrics import length_normalised

Measures = dict[str, float | None]


def by_task(answered: Sequence[AnsweredPrompt]) -> dict[str, list[AnsweredPrompt]]:
    """The prompts of each task, in the order given."""
    return {
        task: [prompt for prompt in answered if prompt.task == task]
        for task in dict.fromkeys(prompt.task for prompt in answered)
    }


def is_verifiable(answered: Sequence[AnsweredPrompt]) -> bool:
    """Whether the task's reward gives verdicts, whatever the values are that came this time."""
    return all(prompt.verdicts for prompt in answered)


def may_be_verdicts(answered: Sequence[AnsweredPrompt]) -> bool:
    """Whether a reward that does not say that it gives verdicts has given nothing but 0 and 1 this time."""
    given = {reward for prompt in answered for reward in prompt.rewards if reward is not None}
    return not is_verifiable(answered) and bool(given) and given <= {0.0, 1.0}


def verdicts(answered: Sequence[AnsweredPrompt]) -> list[list[float]]:
    """[P][n] 0 or 1: an answer that could not be verified counts as wrong, and is counted by its outcome."""
    return [[reward or 0.0 for reward in prompt.rewards] for prompt in answered]


def task_measures(answered: Sequence[AnsweredPrompt]) -> Measures:
    """The measures of one task: of verdicts where it has them, of rewards and lengths always.

    The majority vote is None where no answer has a vote, which is what its last box holds.
    """
    correctness = _of_verdicts(answered) if is_verifiable(answered) else {}
    return correctness | _of_rewards(answered)


def overall_accuracy(answered: Sequence[AnsweredPrompt]) -> tuple[float, float | None] | None:
    """Mean and standard error over seeds of the mean over the verifiable tasks; None if there is none."""
    tasks = [verdicts(of_task) for of_task in by_task(answered).values() if is_verifiable(of_task)]
    if not tasks:
        return None
    return over_seeds([[statistics.fmean(seed) for seed in zip(*task, strict=True)] for task in tasks])


def selection_value(measures: Mapping[str, Measures], selection: Selection) -> float | None:
    """What the versions of a run are compared by, the higher the better; None if no task has it.

    Args:
        measures: by task.
        selection: accuracy (mean over the verifiable tasks), length_normalised_reward (over the others), or
            the mean of the two, which is the one that there is if all tasks are of one kind.
    """
    accuracies = [of_task["accuracy"] for of_task in measures.values() if "accuracy" in of_task]
    rewards = [m["length_normalised_reward"] for m in measures.values() if "accuracy" not in m]
    parts = {Selection.accuracy: _mean(accuracies), Selection.length_normalised_reward: _mean(rewards)}
    return _mean(list(parts.values())) if selection is Selection.mean else parts[selection]


def _of_verdicts(answered: Sequence[AnsweredPrompt]) -> Measures:
    correct = verdicts(answered)
    mean, stderr = over_seeds(correct)
    votes = [[vote_of(text) for text in prompt.responses] for prompt in answered]
    num_answers = len(correct[0])
    passes = {
        f"pass_at_{k}": statistics.fmean(pass_at_k(num_answers, round(sum(row)), k) for row in correct)
        for k in ks_for(num_answers)
    }
    has_votes = any(vote is not None for of_prompt in votes for vote in of_prompt)
    majority = statistics.fmean(map(majority_vote, votes, correct)) if has_votes else None
    return {"accuracy": mean, "accuracy_stderr": stderr, "majority": majority, **passes}


def _of_rewards(answered: Sequence[AnsweredPrompt]) -> Measures:
    lengths = [length for prompt in answered for length in prompt.lengths_tokens]
    finished = [finished for prompt in answered for finished in prompt.finished]
    measures: Measures = {"length_mean": statistics.fmean(lengths), "cut_off": 1 - statistics.fmean(finished)}
    rewards = [reward for prompt in answered for reward in prompt.rewards]
    scored = [(r, length) for r, length in zip(rewards, lengths, strict=True) if r is not None]
    if not scored:
        none = ("reward", "length_normalised_reward", "length_normalised_ratio")
        return dict.fromkeys(none, None) | measures
    given, lengths_of_given = zip(*scored, strict=True)
    per_example, ratio = length_normalised(given, lengths_of_given)
    return {
        "reward": statistics.fmean(given),
        "length_normalised_reward": per_example,
        "length_normalised_ratio": ratio,
        **measures,
    }


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None
