"""`rlstack score`: the answers in a file to a file with their rewards."""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

from rlstack.config.reward_names import ACCEPTED
from rlstack.config.schema import Evaluation, RewardModel, RunConfig, Task
from rlstack.config.validate import validate_rewards
from rlstack.data.rows import Row
from rlstack.errors import ConfigError
from rlstack.orchestration.score_report import Results, report
from rlstack.orchestration.scored_file import ScoredFile, identity_of, scored_file
from rlstack.rewards.answer_file import Fields, answered_rows
from rlstack.rewards.router import start_scorer
from rlstack.rewards.scorer import Question, Scorer
from rlstack.telemetry.progress import Progress

CHUNK_RESPONSES = 512  # scored together, where a score depends on what is scored beside it
CHUNK_S = 0.5  # of work, about, in any other chunk: what an interruption loses

Answered = tuple[Row, Question]


def score_file(path: Path, out: Path, *, reward: str, config: RunConfig, fields: Fields) -> bool:
    """Score every response in the file at `path` and write its rows with their rewards to `out`.

    Rows are written as they are scored, and those that `out` has already are not scored again.

    Args:
        reward: math, the folder of a reward model, the name of one of `config.reward.models`, or a plug-in.
        config: its `reward` and `cluster` are used.
        fields: what the rows call their problem and their answer.

    Returns:
        Whether at least one response has a reward, or there are none.

    Raises:
        ConfigError: the reward, the file, one of its rows or `out` cannot be used; nothing has been written.
        OSError: the disk is full, for example; what was written before is kept.
    """
    config = _config_for(reward, path, config)
    reward = config.data.tasks[0].reward
    rows = answered_rows(path, reward=reward, fields=fields)
    num_responses = [len(question.responses) for _, question in rows]
    total = sum(num_responses)
    results = Results(fields)
    with scored_file(out, path, identity_of(reward, config.reward.models, fields)) as file:
        rows = answered_rows(path, reward=reward, fields=fields)
        _take_kept(rows, file, results)
        num_kept, started = len(results.scores), time.perf_counter()
        if num_kept:
            print(f"{num_kept} of {total} responses are in {out} already")
        with _told(results, total, out):
            if file.num_kept < len(num_responses):
                with _running(reward, config) as scorer:
                    _score(rows, scorer, file, results, total)
            spent_s = time.perf_counter() - started
            report(results, num_new=len(results.scores) - num_kept, spent_s=spent_s, out=out)
    return not results.scores or any(score.reward is not None for score in results.scores)


def _take_kept(rows: Iterator[Answered], file: ScoredFile, results: Results) -> None:
    """The rows that have their rewards, from the beginning of `rows`."""
    position = -1
    for position, (row, _) in enumerate(islice(rows, file.num_kept)):
        results.add(row, file.kept(row, position))
    if position + 1 < file.num_kept:
        raise ConfigError(f"--out = {file.path}: has more rows than FILE; give another --out")


def _score(rows: Iterator[Answered], scorer: Scorer, file: ScoredFile, results: Results, total: int) -> None:
    with Progress("responses", total=total, done=len(results.scores)) as progress:
        for chunk in _chunks(rows, depends_on_batch=scorer.depends_on_batch):
            scores = scorer.score([question for _, question in chunk])
            for (row, _), of_row in zip(chunk, scores, strict=True):
                file.add(row, of_row)
                results.add(row, of_row)
            progress.advance(sum(map(len, scores)))


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
    from rlstack.data.load import refuse_reward_models  # imports transformers
    from rlstack.orchestration.cluster import Cluster

    refuse_reward_models(config)
    logs = Path(tempfile.mkdtemp(prefix="rlstack-score-"))
    say = partial(print, file=sys.stderr)
    with Cluster(config, logs, say=say, policy=False, engines=False) as cluster:
        models = cluster.start_reward_models()
        cluster.wait_for_reward_models()
        yield models[reward]
    shutil.rmtree(logs)  # not after a failure, whose message names a log


@contextmanager
def _told(results: Results, total: int, out: Path) -> Iterator[None]:
    """Say where the rewards so far are, whatever ends the context before all are there."""
    try:
        yield
    except BaseException:
        if results.scores:
            done = f"{len(results.scores)} of {total} responses are in {out}"
            print(f"{done}; the same command continues after them", file=sys.stderr)
        raise


def _chunks(rows: Iterable[Answered], *, depends_on_batch: bool) -> Iterator[list[Answered]]:
    """Rows to score together: always the same ones where that matters, otherwise about CHUNK_S of work."""
    size = CHUNK_RESPONSES if depends_on_batch else 1
    chunk: list[Answered] = []
    num_responses = 0
    for row in rows:
        chunk.append(row)
        num_responses += len(row[1].responses)
        if num_responses >= size:
            started = time.perf_counter()
            yield chunk
            if not depends_on_batch:
                size = _next_size(size, time.perf_counter() - started)
            chunk, num_responses = [], 0
    if chunk:
        yield chunk


def _next_size(size: int, spent_s: float) -> int:
    """Responses of the next chunk, after one of `size` that took `spent_s`."""
    if spent_s < CHUNK_S:
        return min(2 * size, CHUNK_RESPONSES)
    return max(size // 2, 1) if spent_s > 2 * CHUNK_S else size
