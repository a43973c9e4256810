"""Whatever has become of what a run wrote: it is read, or refused by one error of ours."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlstack.config.schema import Schedule as Settings
from rlstack.data.journal import Journal
from rlstack.evaluation.benchmarks import Benchmark, BenchmarkName
from rlstack.orchestration.adaptive_schedule import AdaptiveSchedule, Decision, build_schedule
from rlstack.telemetry.curves import read_rows, read_run
from rlstack.telemetry.rollouts.groups import select
from rlstack.telemetry.run_record import read_record
from tests.fuzz.hostile import damaged, lines, outcome, values

METRICS = b'{"step": 1, "reward/mean": 0.5}\n{"step": 2, "reward/mean": null}\n'
logs = damaged(METRICS) | lines(st.dictionaries(st.sampled_from(["step", "reward/mean"]), values))
DECISIONS = [
    asdict(Decision(version=v, until=v + 2, before=None if v == 0 else 2, interval=2, reason="start"))
    for v in range(0, 8, 2)
]
INTERVALS = b"".join(json.dumps(row).encode() + b"\n" for row in DECISIONS)
decisions = st.lists(st.integers(-1, 9), min_size=2, max_size=2).map(
    lambda ends: DECISIONS[0] | {"version": ends[0], "until": ends[1]}
)
ROLLOUT = {"step": 1, "task": "a", "row": 0, "version": 0, "problem": "p", "answer": None, "text": "t"}
ROLLOUT |= {"reward": 0.5, "outcome": "ok", "finished": True, "length_tokens": 1}
ROLLOUTS = b"".join(json.dumps(ROLLOUT | {"reward": reward}).encode() + b"\n" for reward in (None, 1.0, 0))
settings_files = damaged(b"run: {name: a, seed: 0}\nschedule: {num_steps: 4}\n")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    yield tmp_path_factory.mktemp("logs")


@given(content=logs)
def test_rows_are_objects_or_refused(folder: Path, content: bytes) -> None:
    (folder / "metrics.jsonl").write_bytes(content)
    rows = outcome(lambda: list(read_rows(folder / "metrics.jsonl")))
    assert rows is None or all(isinstance(row, dict) for row in rows)


@given(settings=settings_files, metrics=logs, summary=damaged(b'{"steps": 2, "evaluations": []}'))
def test_a_run_s_folder_is_a_record_or_refused(
    folder: Path, settings: bytes, metrics: bytes, summary: bytes
) -> None:
    for name, content in {"config.yaml": settings, "metrics.jsonl": metrics, "summary.json": summary}.items():
        (folder / name).write_bytes(content)
    outcome(lambda: read_record(folder).name)
    outcome(lambda: read_run(folder))


@given(content=damaged(ROLLOUTS) | lines(st.dictionaries(st.sampled_from(list(ROLLOUT)), values)))
def test_rollouts_are_groups_or_refused(folder: Path, content: bytes) -> None:
    (folder / "rollouts.jsonl").write_bytes(content)
    found = outcome(lambda: select(folder / "rollouts.jsonl", n=2, name="data"))
    assert found is None or found.shown_rollouts == found.num_rollouts


@given(content=damaged(INTERVALS) | lines(decisions) | lines(values))
def test_intervals_are_replayed_or_refused(folder: Path, content: bytes) -> None:
    (folder / "intervals.jsonl").write_bytes(content)
    settings = Settings(num_steps=6, sync_interval="auto")
    settings.adaptive.replay = str(folder / "intervals.jsonl")
    schedule = outcome(lambda: build_schedule(settings))
    if schedule is not None:
        assert isinstance(schedule, AdaptiveSchedule)
        version = 0
        while version < 6:
            version = schedule.decide(version, [])["until"] if version == 0 else 6


@given(content=damaged(METRICS) | lines(values))
def test_a_journal_is_rows_or_refused(folder: Path, content: bytes) -> None:
    (folder / "journal.jsonl").write_bytes(content)
    journal = outcome(lambda: Journal(folder / "journal.jsonl"))
    if journal is not None:
        journal.close()
        assert all(isinstance(row, dict) for row in journal.rows)


@given(name=st.sampled_from(list(BenchmarkName)), content=lines(values) | damaged(b'[{"instruction": "x"}]'))
def test_questions_are_a_benchmark_or_refused(folder: Path, name: BenchmarkName, content: bytes) -> None:
    (folder / "questions.json").write_bytes(content)
    benchmark = outcome(lambda: Benchmark.read(name, folder / "questions.json"))
    assert benchmark is None or len(benchmark.texts()) == len(benchmark.rows)
