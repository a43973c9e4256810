"""What an evaluation reads and leaves: kept answers, benchmarks, the report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path

import pytest
from rich.console import Console

from rlstack.config.schema import Evaluation, RunConfig, Task
from rlstack.config.schema import Rollout as RolloutSettings
from rlstack.data.journal import Journal
from rlstack.data.records import Outcome, Prompt, Rollout, Score
from rlstack.errors import ConfigError
from rlstack.evaluation.answering import Work, answer, chunk_size
from rlstack.evaluation.answers import AnsweredPrompt
from rlstack.evaluation.benchmarks import Benchmark, BenchmarkName
from rlstack.evaluation.games import read_answers
from rlstack.evaluation.kept import KeptAnswers
from rlstack.evaluation.report import evaluation_report, report_table
from rlstack.orchestration.engine_seat import Sampling
from rlstack.rewards.router import Rewards
from rlstack.rewards.scorer import Question


def prompt(row: int, *, task: str = "sums", problem: str = "1+1") -> Prompt:
    return Prompt(task=task, row=row, problem=problem, token_ids=(1,), answer="2")


def answered(row: int, *rewards: float | None, task: str = "sums") -> AnsweredPrompt:
    return AnsweredPrompt(
        task=task,
        row=row,
        problem="1+1",
        answer="2",
        responses=("ü\u2028\n",) * len(rewards),
        rewards=rewards,
        outcomes=tuple(Outcome.timeout if reward is None else Outcome.ok for reward in rewards),
        lengths_tokens=(3,) * len(rewards),
        finished=(True,) * len(rewards),
        verdicts=task == "sums",
    )


def test_kept_answers_are_found_again_even_after_a_torn_line(tmp_path: Path) -> None:
    kept = KeptAnswers(tmp_path)
    kept.keep([answered(0, 1.0, None), answered(2, 0.0, 1.0)])
    kept.close()
    path = tmp_path / "answers.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:30])
    kept = KeptAnswers(tmp_path)
    prompts = [prompt(0), prompt(1), prompt(2, problem="another text"), prompt(0, task="other")]
    assert kept.missing(prompts) == [1, 2, 3]
    assert kept.of(prompts[:1]) == [answered(0, 1.0, None)]
    assert path.read_bytes() == whole
    kept.keep([answered(1, 1.0, 1.0)])
    kept.close()
    assert [json.loads(line)["row"] for line in path.read_text().split("\n")[:-1]] == [0, 2, 1]


def test_a_journal_is_one_processs_at_a_time(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "a" / "x.jsonl")
    with pytest.raises(ConfigError, match="another process is writing it"):
        Journal(tmp_path / "a" / "x.jsonl")
    journal.close()
    Journal(tmp_path / "a" / "x.jsonl").close()


@pytest.mark.parametrize(
    ("content", "says"), [("[1]\n", "line 1: is not a JSON object"), ("{}\n", "is not of an evaluation")]
)
def test_a_file_of_something_else_is_left_alone(tmp_path: Path, content: str, says: str) -> None:
    (tmp_path / "answers.jsonl").write_text(content)
    with pytest.raises(ConfigError, match=says):
        KeptAnswers(tmp_path)
    assert (tmp_path / "answers.jsonl").read_text() == content


class Engines:
    """Stands for an EngineGroup: answers with the prompt's position; notes what is submitted."""

    def __init__(self) -> None:
        self.submitted: list[list[int]] = []

    def submit(
        self, prompts: list[Prompt], sampling: Sampling, *, stream: str, places: list[tuple[int, int]]
    ) -> list[Future[tuple[Rollout, ...]]]:
        assert stream == "evaluate" and {step for step, _ in places} == {0}
        positions = [position for _, position in places]
        self.submitted.append(positions)
        answers: list[Future[tuple[Rollout, ...]]] = [Future() for _ in prompts]
        for i, future in zip(positions, answers, strict=True):
            future.set_result(
                tuple(
                    Rollout(token_ids=(1,), generator_logprobs=(0.0,), text=f"{i}", finished=True, version=0)
                    for _ in range(sampling.n)
                )
            )
        return answers

    def attend(self) -> None:
        """Nobody is ever lost."""


class Ones:
    depends_on_batch = False
    gives_verdicts = True

    def score(self, questions: Sequence[Question]) -> list[tuple[Score, ...]]:
        return [(Score(reward=1.0),) * len(question.responses) for question in questions]


def test_all_work_is_done_in_chunks_the_next_under_way_while_one_is_kept() -> None:
    settings = RolloutSettings(max_num_seqs=1, engines=2)
    sampling = Sampling(n=4, temperature=1.0, top_p=1.0)
    scored = Work([prompt(i) for i in (1, 3, 4, 7, 8)], [1, 3, 4, 7, 8], sampling, is_scored=True)
    plain = Work([prompt(0, task="b")], [0], Sampling(n=1, temperature=1.0, top_p=1.0), is_scored=False)
    engines, kept, under_way = Engines(), [], []

    def keep(chunk: list[AnsweredPrompt]) -> None:
        kept.extend(chunk)
        under_way.append(len(engines.submitted))

    evaluation = Evaluation(tasks=[Task(name=name, path="", reward="ones") for name in ("sums", "b")])
    with Rewards(RunConfig(evaluation=evaluation), {"ones": Ones()}) as rewards:
        answer([scored, plain], engines, rewards, settings, keep)  # type: ignore[arg-type]
    assert engines.submitted == [[1, 3], [4, 7], [8], [0]]
    assert under_way == [2, 3, 4, 4]
    assert [(a.task, a.responses[0]) for a in kept] == [
        *[("sums", str(i)) for i in (1, 3, 4, 7, 8)],
        ("b", "0"),
    ]
    assert kept[0].rewards == (1.0,) * 4
    assert (kept[-1].rewards, kept[-1].outcomes) == ((), ())


def test_a_chunk_is_several_full_batches_and_never_empty() -> None:
    assert chunk_size(RolloutSettings(max_num_seqs=256, engines=2), n=50) == 41
    assert chunk_size(RolloutSettings(max_num_seqs=1), n=50) == 1


ALPACA = [{"instruction": "Say hi", "dataset": "helpful_base", "output": "Hello", "generator": "davinci"}]
ARENA = [{"uid": "u1", "category": "hard", "cluster": "c", "prompt": "Say hi"}]
OLD_ARENA = [{"question_id": "q1", "category": "arena-hard-v0.1", "turns": [{"content": "Say hi"}]}]


def test_alpaca_eval_answers_are_what_its_tool_reads(tmp_path: Path) -> None:
    (tmp_path / "alpaca_eval.json").write_text(json.dumps(ALPACA))
    benchmark = Benchmark.read(BenchmarkName.alpaca_eval, tmp_path / "alpaca_eval.json")
    assert benchmark.texts() == ["Say hi"]
    path = benchmark.write(tmp_path, ["Hi!"], generator="mine")
    assert path == tmp_path / "alpaca_eval" / "model_outputs.json"
    expected = {"instruction": "Say hi", "output": "Hi!", "generator": "mine", "dataset": "helpful_base"}
    assert json.loads(path.read_text()) == [expected]
    assert read_answers(path) == {"Say hi": ("Say hi", "Hi!")}


def test_arena_hard_answers_are_what_its_tool_reads(tmp_path: Path) -> None:
    (tmp_path / "question.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ARENA))
    benchmark = Benchmark.read(BenchmarkName.arena_hard, tmp_path / "question.jsonl")
    assert benchmark.texts() == ["Say hi"]
    path = benchmark.write(tmp_path, ["Hi!\u2028"], generator="mine")
    assert path == tmp_path / "arena_hard" / "model_answer" / "mine.jsonl"
    row = json.loads(path.read_text())
    assert (row["uid"], row["model"]) == ("u1", "mine")
    assert row["messages"] == [
        {"role": "user", "content": "Say hi"},
        {"role": "assistant", "content": {"answer": "Hi!\u2028"}},
    ]
    assert row["ans_id"] and row["tstamp"] > 0
    assert read_answers(path) == {"u1": ("Say hi", "Hi!\u2028")}


def test_arena_hards_older_questions_get_its_older_answers(tmp_path: Path) -> None:
    (tmp_path / "question.jsonl").write_text(json.dumps(OLD_ARENA[0]))
    benchmark = Benchmark.read(BenchmarkName.arena_hard, tmp_path / "question.jsonl")
    assert benchmark.texts() == ["Say hi"]
    row = json.loads(benchmark.write(tmp_path, ["Hi!"], generator="mine").read_text())
    assert (row["question_id"], row["model_id"]) == ("q1", "mine")
    assert row["choices"] == [{"index": 0, "turns": [{"content": "Hi!"}]}]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("alpaca_eval", json.dumps(ARENA), "row 1: a row of alpaca_eval has `instruction`"),
        ("arena_hard", json.dumps(ALPACA), "row 1: a row of arena_hard has `prompt` and `uid`"),
        ("arena_hard", "[]", "one object or more"),
        ("arena_hard", "{", "neither a JSON list nor JSONL"),
    ],
)
def test_a_file_of_another_benchmark_is_refused(tmp_path: Path, name: str, content: str, says: str) -> None:
    (tmp_path / "file").write_text(content)
    with pytest.raises(ConfigError, match=says):
        Benchmark.read(BenchmarkName(name), tmp_path / "file")


def test_the_report_has_every_task_and_the_table_fits_a_terminal() -> None:
    config = RunConfig()
    config.evaluation.n = 2
    report = evaluation_report(
        [answered(0, 1.0, None), answered(1, 0.0, 0.0), answered(0, 2.5, -1.0, task="notes")],
        config,
        version=120,
    )
    assert (report["version"], report["accuracy"]) == (120, pytest.approx(1 / 4))
    assert report["tasks"]["sums"]["timeouts"] == 1
    assert report["tasks"]["notes"]["reward"] == pytest.approx(0.75)
    console = Console(width=80)
    with console.capture() as capture:
        console.print(report_table(report))
    rows = {line[:15].strip(): line[15:].split() for line in capture.get().splitlines()}
    assert rows[""] == ["sums", "notes"]
    assert rows["problems"] == ["2", "1"]
    assert rows["accuracy"] == ["0.250", "±", "0.250", "-"]
    assert rows["pass@2"] == ["0.500", "-"]
    assert rows["reward"] == ["-", "0.750"]
    assert "majority vote" not in rows  # for no answer has a box
    assert rows["not scored"] == ["1", "of", "4", "-"]
