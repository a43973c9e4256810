"""Steps that are traced, spans in the traces, and what is left of a GPU whose memory was full."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from rlstack.config.profiling import is_profiled, profile_problems
from rlstack.config.schema import Policy, RunConfig, Schedule, Telemetry
from rlstack.policy.profiling import StepProfiler
from rlstack.rollout.engine import Engine
from rlstack.telemetry import timeline


def problems(steps: list[int] | None, *, num_steps: int = 5) -> list[str]:
    telemetry, schedule = Telemetry(profile_steps=steps), Schedule(num_steps=num_steps)
    return list(profile_problems(RunConfig(policy=Policy(model="m"), schedule=schedule, telemetry=telemetry)))


@pytest.mark.parametrize("steps", [None, [1, 1], [2, 5], [5, 9]])
def test_steps_of_the_run_are_accepted(steps) -> None:
    assert problems(steps) == []


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([2], "telemetry.profile_steps = [2]: the first and the last of some steps are accepted"),
        ([3, 2], "telemetry.profile_steps = [3, 2]: the first and the last of some steps are accepted"),
        ([0, 2], "telemetry.profile_steps = [0, 2]: the first and the last of some steps are accepted"),
        ([6, 7], "telemetry.profile_steps = [6, 7]: steps up to schedule.num_steps = 5 are accepted"),
    ],
)
def test_others_are_refused(steps, message) -> None:
    (found,) = problems(steps)
    assert found.startswith(message)


def test_the_steps_of_which_all_spans_are_kept_are_checked_likewise() -> None:
    config = RunConfig(policy=Policy(model="m"), schedule=Schedule(num_steps=5))
    config.telemetry.timeline_steps = [2, 9]
    assert list(profile_problems(config)) == []
    config.telemetry.timeline_steps = [9, 2]
    (found,) = profile_problems(config)
    assert found.startswith("telemetry.timeline_steps = [9, 2]: the first and the last of some steps")


def test_the_first_and_the_last_step_are_traced_too() -> None:
    telemetry = Telemetry(profile_steps=[2, 3])
    assert [is_profiled(telemetry, step) for step in range(1, 5)] == [False, True, True, False]
    assert not is_profiled(Telemetry(), 1)


def test_spans_are_marked_in_another_tools_record_and_end_there_in_their_own_order() -> None:
    seen: list[str] = []

    @contextmanager
    def mark(name: str) -> Iterator[None]:
        seen.append(f"+{name}")
        try:
            yield
        finally:
            seen.append(f"-{name}")

    timeline.take()
    first, second = timeline.span("first"), timeline.span("second")
    with timeline.marked_with(mark):
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
    second.__exit__(None, None, None)  # its mark ends with it, whoever is told of others by then
    with timeline.span("third"):
        pass
    assert seen == ["+first", "+second", "-first", "-second"]
    assert [span.phase for span in timeline.take()] == ["first", "second", "third"]


def test_a_full_gpu_leaves_a_snapshot_of_its_memory(tmp_path: Path, monkeypatch, capsys) -> None:
    taken: list[str] = []
    monkeypatch.setattr(torch.cuda.memory, "_dump_snapshot", taken.append)
    profiler = StepProfiler(Telemetry(), tmp_path / "profile", rank=3)
    with pytest.raises(torch.OutOfMemoryError, match="out"), profiler.step(1):
        raise torch.OutOfMemoryError("out of memory")
    assert taken == [str(tmp_path / "profile" / "policy-rank-3-out-of-memory.pickle")]
    assert (tmp_path / "profile").is_dir()
    assert taken[0] in capsys.readouterr().out
    with pytest.raises(RuntimeError, match="other"), profiler.step(2):
        raise RuntimeError("other")
    assert len(taken) == 1


class Llm:
    def __init__(self) -> None:
        self.calls: list[str] = []

    def start_profile(self) -> None:
        self.calls.append("start")

    def stop_profile(self) -> None:
        self.calls.append("stop")


@pytest.mark.parametrize("is_dropped", [False, True])
def test_an_engine_is_traced_for_as_long_as_it_samples_what_is_profiled(is_dropped) -> None:
    engine: Any = Engine.__new__(Engine)
    engine._llm = Llm()
    with engine._traced(False):
        pass
    assert engine._llm.calls == []
    try:
        with engine._traced(True):
            assert engine._llm.calls == ["start"]
            if is_dropped:
                raise GeneratorExit
    except GeneratorExit:
        pass
    assert engine._llm.calls == ["start", "stop"]
