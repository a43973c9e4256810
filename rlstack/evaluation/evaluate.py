"""`rlstack evaluate`: sampled answers, their rewards, and what they come to."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from rich.console import Console as RichConsole
from transformers import PreTrainedTokenizerBase

from rlstack.config.machine import Machine
from rlstack.config.own_code import OwnCode
from rlstack.config.schema import RunConfig
from rlstack.config.sequences import cache_problems
from rlstack.data.datasets import tokenise
from rlstack.data.load import load_held_out, tokenizer_and_room
from rlstack.data.records import Prompt
from rlstack.errors import ConfigError
from rlstack.evaluation.answering import Work, answer
from rlstack.evaluation.answers import AnsweredPrompt
from rlstack.evaluation.benchmarks import Benchmark
from rlstack.evaluation.identity import hold_to, identity
from rlstack.evaluation.kept import KeptAnswers
from rlstack.evaluation.report import evaluation_report, report_table
from rlstack.evaluation.request import Request
from rlstack.evaluation.task_measures import by_task, may_be_verdicts
from rlstack.model.architecture import Architecture
from rlstack.orchestration.cluster import Cluster
from rlstack.orchestration.engine_seat import Sampling
from rlstack.preflight.checks import checks_named
from rlstack.preflight.planned import Planned
from rlstack.preflight.runner import refuse
from rlstack.rewards.gold_check import refuse_unverifiable
from rlstack.rewards.router import Rewards
from rlstack.telemetry.console import Console
from rlstack.telemetry.environment import hardware, package_versions
from rlstack.telemetry.logs import write_traceback
from rlstack.telemetry.progress import Progress
from rlstack.telemetry.run_dir import write_json


def evaluate(request: Request) -> None:
    """Answer what `request.out` lacks answers to, score it, and write what all of it comes to.

    Raises:
        ConfigError: the data cannot be used, or `request.out` holds answers of another evaluation.
        RoleError: an engine failed, died or was late; the answers so far are kept.
    """
    started = time.perf_counter()
    refuse(Planned(config=request.config, own=OwnCode()), checks_named("rewards"))
    prompts = load_held_out(request.config) if request.config.evaluation.tasks else []
    refuse_unverifiable(request.config, prompts)
    questions = _questions(request.benchmarks, request.config) if request.benchmarks else []
    with closing(KeptAnswers(request.out)) as kept:
        hold_to(request.out / "settings.json", identity(request.config))
        logs = request.out / "logs"
        logs.mkdir(exist_ok=True)
        try:
            _answer_missing(request, _works(request.config, prompts, questions, kept), kept, logs)
        except Exception as error:
            log = write_traceback(error, logs)
            error.add_note(f"the traceback is in {log}; the answers so far are kept")
            raise
        answered, to_judge = kept.of(prompts), [kept.of(of_benchmark) for of_benchmark in questions]
    if answered:
        _write_report(request, answered, wall_s=time.perf_counter() - started)
    for benchmark, answers in zip(request.benchmarks, to_judge, strict=True):
        responses = [prompt.responses[0] for prompt in answers]
        path = benchmark.write(request.out, responses, generator=request.name)
        print(f"{benchmark.name}: {path}")


def _questions(benchmarks: Sequence[Benchmark], config: RunConfig) -> list[list[Prompt]]:
    """Each benchmark's questions as prompts, without a template of ours around them."""
    tokenizer, room = tokenizer_and_room(config)
    architecture = Architecture.from_folder(Path(config.policy.model))
    return [_prompts_of(benchmark, tokenizer, room, architecture) for benchmark in benchmarks]


def _prompts_of(
    benchmark: Benchmark, tokenizer: PreTrainedTokenizerBase, room: int, architecture: Architecture
) -> list[Prompt]:
    texts = benchmark.texts()
    prompts = [
        Prompt(task=benchmark.name.value, row=row, problem=text, token_ids=token_ids)
        for row, (text, token_ids) in enumerate(zip(texts, tokenise(tokenizer, texts), strict=True))
    ]
    if long := [prompt.row + 1 for prompt in prompts if len(prompt.token_ids) > room]:
        raise ConfigError(
            f"{benchmark.name}: {len(long)} prompts, first that of row {long[0]}, have more than the {room} "
            "tokens that the context leaves room for; lower --max-new-tokens"
        )
    most, known = max((int(prompt.token_ids.max()) for prompt in prompts), default=0), architecture.vocab_size
    if most >= known:
        raise ConfigError(
            f"{benchmark.name}: a prompt has token {most}, and the model has a vocab_size of {known}; use "
            "the model's own tokenizer, or resize its embeddings"
        )
    return prompts


def _works(
    config: RunConfig, prompts: Sequence[Prompt], questions: Sequence[Sequence[Prompt]], kept: KeptAnswers
) -> list[Work]:
    """What is missing: n scored answers to each prompt, one answer for the judge to each question."""
    works = []
    for part, n in ((prompts, config.evaluation.n), *((part, 1) for part in questions)):
        sampling = Sampling(n=n, temperature=config.evaluation.temperature, top_p=config.evaluation.top_p)
        positions = kept.missing(part)
        missing = [part[i] for i in positions]
        works.append(
            Work(missing, positions, sampling, is_scored=part is prompts, num_kept=len(part) - len(missing))
        )
    return works


def _answer_missing(request: Request, works: Sequence[Work], kept: KeptAnswers, logs: Path) -> None:
    config, console = request.config, Console(num_steps=0)
    num_missing = sum(len(work.prompts) * work.sampling.n for work in works)
    num_kept = sum(work.num_kept * work.sampling.n for work in works)
    if num_kept:
        console.note(f"{num_kept} of {num_kept + num_missing} answers are in {request.out} already")
    if not num_missing:
        return

    longest = max(len(prompt.token_ids) for work in works for prompt in work.prompts)
    if config.cluster.address is None and Machine.detect().num_gpus == 0:
        architecture = Architecture.from_folder(Path(config.policy.model))
        if found := list(cache_problems(config, architecture, max_prompt_tokens=longest)):
            raise ConfigError("\n".join(found))

    def keep(chunk: list[AnsweredPrompt]) -> None:
        kept.keep(chunk)
        progress.advance(sum(len(answers.responses) for answers in chunk))

    with (
        Cluster(
            config,
            logs,
            note=console.restart,
            say=console.note,
            policy=False,
            max_prompt_tokens=longest,
        ) as cluster,
        Rewards(config, cluster.start_reward_models()) as rewards,
    ):
        with console.phase("starting engines"):
            engines = cluster.launch_engines()
        with Progress("answers", total=num_kept + num_missing, done=num_kept) as progress:
            answer(works, engines, rewards, config.rollout, keep)


def _write_report(request: Request, answered: Sequence[AnsweredPrompt], *, wall_s: float) -> None:
    report: dict[str, Any] = evaluation_report(answered, request.config, version=request.version)
    report |= {"wall_s": wall_s, "versions": package_versions(), "hardware": hardware()}
    write_json(request.out / "evaluation.json", report)
    RichConsole(highlight=False, markup=False).print(report_table(report))
    for task, of_task in by_task(answered).items():
        if may_be_verdicts(of_task):
            print(f"{task}: all rewards are 0 or 1; if they are verdicts, say so by the plug-in's `verdicts`")
    print(f"files: {request.out}")
