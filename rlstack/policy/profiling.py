"""A rank's step as torch's profiler and Nsight see it, and a GPU's memory as it was when it was full."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from rlstack.config.profiling import is_profiled
from rlstack.config.schema import Telemetry
from rlstack.policy.backend import on_gpu
from rlstack.telemetry import timeline

MOST_EVENTS = 100_000  # allocations and their stacks that a snapshot of memory goes back


class StepProfiler:
    """Leaves policy-rank-R-step-N.json.gz in `folder` for each profiled step of rank R."""

    def __init__(self, telemetry: Telemetry, folder: Path, *, rank: int) -> None:
        self._telemetry, self._folder = telemetry, folder
        self._name = f"policy-rank-{rank}"
        if on_gpu():
            timeline.mark_with(_nvtx_range)
            if telemetry.profile_steps is not None:
                torch.cuda.memory._record_memory_history(max_entries=MOST_EVENTS)

    @contextmanager
    def step(self, number: int) -> Iterator[None]:
        """Around step `number`, which counts from 1; spans of the timeline are in its trace by their names.

        A step for which the GPU has no memory leaves policy-rank-R-out-of-memory.pickle.
        """
        with self._noting_full_memory():
            if not is_profiled(self._telemetry, number):
                yield
                return
            activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu() else [])]
            with profile(activities=activities) as trace, timeline.marked_with(record_function):
                yield
        self._folder.mkdir(parents=True, exist_ok=True)
        trace.export_chrome_trace(str(self._folder / f"{self._name}-step-{number}.json.gz"))

    @contextmanager
    def _noting_full_memory(self) -> Iterator[None]:
        try:
            yield
        except torch.OutOfMemoryError:
            path = self._folder / f"{self._name}-out-of-memory.pickle"
            self._folder.mkdir(parents=True, exist_ok=True)
            torch.cuda.memory._dump_snapshot(str(path))
            print(f"what the GPU's memory held is in {path}; look at it at pytorch.org/memory_viz")
            raise


@contextmanager
def _nvtx_range(name: str) -> Iterator[None]:
    """By its number: spans need not end in the order in which they began."""
    number = torch.cuda.nvtx.range_start(name)
    try:
        yield
    finally:
        torch.cuda.nvtx.range_end(number)
