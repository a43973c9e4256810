"""`rlstack score`: the answers in a file to a file with their rewards."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from rich.console import Console
from rich.table import Table

from rlstack.config.reward_names import ACCEPTED
from rlstack.config.schema import Evaluation, RewardModel, RunConfig, Task
from rlstack.config.validate import validate_rewards
from rlstack.data.records import Outcome, Score
from rlstack.data.rows import Row
from rlstack.errors import ConfigError
from rlstack.rewards.agreement import (
    Labelled,
    are_verdicts,
    disagreements,
    labelled_answers,
    ordered_share,
)
from rlstack.rewards.answer_file import answered_rows, rewarded_file, to_line, with_rewards
from rlstack.rewards.router import start_scorer
from rlstack.rewards.scorer import Question, Scorer
from rlstack.telemetry.progress import Progress

CHUNK_RESPONSES = 512  # scored together
SHOWN = 50  # disagreements, at most


def score_file(path: Path, out: Path, *, reward: str, config: RunConfig) -> bool:
    """Score every response in the file at `path` and write its rows with their rewards to `out`.

    Args:
        reward: math, the folder of a reward model, the name of one of `config.reward.models`, or a plug-in.
        config: its `reward` and `cluster` are used.

    Returns:
        Whether at least one response has a reward, or there are none.

    Raises:
        ConfigError: the reward, the file or one of its rows cannot be used; nothing has been written.
    """
    config = _config_for(reward, path, config)
    reward = config.data.tasks[0].reward
    num_responses = sum(len(question.responses) for _, question in answered_rows(path, reward=reward))
    scores: list[Score] = []
    labelled: list[Labelled] = []
    with rewarded_file(out) as file, _running(reward, config) as scorer:
        started = time.perf_counter()
        with Progress("responses", total=num_responses) as progress:
            for chunk in _chunks(answered_rows(path, reward=reward)):
                of_chunk = scorer.score([question for _, question in chunk])
                for (row, _), of_row in zip(chunk, of_chunk, strict=True):
                    file.write(to_line(with_rewards(row.record, of_row)))
                    labelled += labelled_answers(row.record, of_row, index=row.index)
                    scores += of_row
                progress.advance(sum(len(question.responses) for _, question in chunk))
        spent_s = time.perf_counter() - started
    _report(scores, labelled, spent_s=spent_s, out=out)
    return not scores or any(score.reward is not None for score in scores)


def _config_for(reward: str, path: Path, config: RunConfig) -> RunConfig:
    """Settings with one task, whose reward is the one to score with."""
    if reward not in {model.name for model in config.reward.models} and Path(reward).is_dir():
        folder = Path(reward).resolve()
        model = RewardModel(name="given", path=str(folder))
        config = replace(config, reward=replace(config.reward, models=[model]))
        reward = model.name
    task = Task(name="given", path=str(path), reward=reward)
    config = replace(config, data=replace(config.data, tasks=[task]), evaluation=Evaluation())
    try:
        validate_rewards(config)
    except ConfigError as error:
        text = str(error).replace("data.tasks[0].reward", "--reward")
        raise ConfigError(text.replace(ACCEPTED, f"the folder of a reward model | {ACCEPTED}")) from None
    return config


@contextmanager
def _running(reward: str, config: RunConfig) -> Iterator[Scorer]:
    """The reward, ready; a reward model is the only one that needs Ray."""
    if reward not in {model.name for model in config.reward.models}:
        with closing(start_scorer(reward, config.reward, setting="--reward")) as scorer:
            yield scorer
        return
    from rlstack.orchestration.cluster import Cluster

    logs = Path(tempfile.mkdtemp(prefix="rlstack-score-"))
    with Cluster(config, logs, policy=False, engines=False) as cluster:
        models = cluster.start_reward_models()
        cluster.wait_for_reward_models()
        yield models[reward]
    shutil.rmtree(logs)  # not after a failure, whose message names a log


def _chunks(rows: Iterator[tuple[Row, Question]]) -> Iterator[list[tuple[Row, Question]]]:
    chunk: list[tuple[Row, Question]] = []
    for row in rows:
        chunk.append(row)
        if sum(len(question.responses) for _, question in chunk) >= CHUNK_RESPONSES:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _report(scores: Sequence[Score], labelled: Sequence[Labelled], *, spent_s: float, out: Path) -> None:
    console = Console(highlight=False, markup=False, soft_wrap=True)
    rewards = [score.reward for score in scores if score.reward is not None]
    mean = f"mean reward {fmean(rewards):.4f}" if rewards else "no reward"
    counts = Counter(score.outcome for score in scores)
    troubles = [f"{counts[outcome]} {outcome.value}s" for outcome in (Outcome.timeout, Outcome.error)]
    if truncated := sum(score.truncated for score in scores):
        troubles.append(f"{truncated} truncated")
    console.print(f"{len(scores)} responses in {spent_s:.1f} s: {mean}, {', '.join(troubles)}")
    if labelled and are_verdicts(labelled):
        _report_verdicts(console, labelled)
    elif (share := ordered_share(labelled)) is not None:
        console.print(f"a correct response scores above an incorrect one to the same problem: {share:.1%}")
    console.print(f"written: {out}")


def _report_verdicts(console: Console, labelled: Sequence[Labelled]) -> None:
    others = disagreements(labelled)
    agreed = len(labelled) - len(others)
    console.print(f"agreement with the labels: {agreed} of {len(labelled)} ({agreed / len(labelled):.2%})")
    if not others:
        return
    table = Table("row", "response", "label", "reward", "gold answer", "answer given", box=None)
    for answer in others[:SHOWN]:
        reward = "none" if answer.reward is None else f"{answer.reward:g}"
        label = "correct" if answer.label else "incorrect"
        table.add_row(answer.row, str(answer.response), label, reward, answer.gold, answer.given)
    console.print(table)
    if len(others) > SHOWN:
        console.print(f"and {len(others) - SHOWN} more")
