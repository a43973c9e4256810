"""What runs in a role's process: the object that was built there, its calls, and where they are noted."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import ray

from rlstack.config.surroundings import RENAME, foreign_modules
from rlstack.errors import ConfigError
from rlstack.orchestration.home import settle
from rlstack.orchestration.loopback import is_alone, refuse_listeners
from rlstack.orchestration.processes import Processes, own_processes
from rlstack.telemetry import nvml, timeline
from rlstack.telemetry.clocks import Reading
from rlstack.telemetry.logs import capture_output
from rlstack.telemetry.timeline import Span

Builder = Callable[..., Any]

# What a role is doing, on the timeline, in the calls that are not called so themselves.
PHASES = {
    "generate_stream": "generate",
    "train_step": "train",
    "skip_step": "train",
    "scale_lr": "train",
    "sync_reference": "sync",
    "open_transfer": "sync",
    "close_transfer": "sync",
    "begin_send": "sync",
    "begin_receive": "sync",
    "commit_receive": "sync",
    "fence": "sync",
    "probe": "sync",
    "serve": "start_up",
    "start": "start_up",
    "restore": "start_up",
    "serve_version": "sync",
    "end_serving": "sync",
    "is_saved": "save",
    "finish_save": "save",
    "warm_up": "start_up",
    "sleep": "sync",
    "wake": "sync",
    "release_memory": "sync",
}


# Calls that open connections; the builders of the others do.
CONNECTING = {"start", "open_transfer"}

_END = object()


class Answer(NamedTuple):
    """What travels back from a role: a result, and what the role has done since its last answer."""

    result: Any
    spans: list[Span]
    samples: list[nvml.Sample]
    reading: Reading  # spans and samples are on this clock

    @classmethod
    def of(cls, result: Any, *, asked_s: float | None, begun_s: float) -> Answer:
        spans, samples = timeline.take(), nvml.take()
        reading = Reading(ray.util.get_node_ip_address(), asked_s, begun_s, timeline.now_s())
        return cls(result, spans, samples, reading)


class Host:
    """An object in a process of its own."""

    def __init__(
        self,
        name: str,
        log: Path,
        build: Builder,
        kwargs: Mapping[str, Any],
        gpus: tuple[str, ...],
        environment: Mapping[str, str],
        sampled_gpus: Sequence[str],
    ) -> None:
        capture_output(log)
        settle(gpus, environment)
        print(f"{name} on node {ray.util.get_node_ip_address()}, GPUs {', '.join(gpus) or 'none'}")
        timeline.act_as(name)
        _sample_gpus(name, sampled_gpus)
        self._target: Any = None
        self._broken: Exception | None = None  # why there is no target
        try:
            with timeline.span("start_up"), _own_words():
                refuse_foreign_modules()
                self._target = build(**kwargs)
                _stay_on_loopback()
        except Exception as error:  # Ray would tell the driver of it as a long text
            traceback.print_exc()
            self._broken = error

    def processes(self) -> Processes:
        return own_processes()

    def call(self, asked_s: float, method: str, /, *args: Any, **kwargs: Any) -> Answer:
        """asked_s: now, by the driver's clock. Raises what kept the object from being built."""
        begun_s = timeline.now_s()
        if self._broken is not None:
            raise self._broken
        with timeline.span(phase_of(method)), _own_words():
            result = getattr(self._target, method)(*args, **kwargs)
            if method in CONNECTING:
                _stay_on_loopback()
        return Answer.of(result, asked_s=asked_s, begun_s=begun_s)

    def stream(self, asked_s: float | None, method: str, /, *args: Any, **kwargs: Any) -> Iterator[Answer]:
        begun_s = timeline.now_s()
        items = getattr(self._target, method)(*args, **kwargs)
        while True:
            with timeline.span(phase_of(method)), _own_words():
                item = next(items, _END)
            if item is _END:
                return
            yield Answer.of(item, asked_s=asked_s, begun_s=begun_s)
            asked_s = None


def refuse_foreign_modules() -> None:
    """Raise ConfigError if this process would import a package that is not the one installed."""
    for module, path, installed in foreign_modules():
        raise ConfigError(f"`import {module}` finds {path}, which is not {installed}; {RENAME}")


def _stay_on_loopback() -> None:
    """Raise StrangerError if other machines could connect to this role of a Ray that is for one machine."""
    if is_alone():
        refuse_listeners()


def phase_of(method: str) -> str:
    """What the timeline calls the time in a role's `method`."""
    return PHASES.get(method, method)


@contextmanager
def _own_words() -> Iterator[None]:
    """An exception of a library that the driver never imports travels as its text; the log has the rest."""
    try:
        yield
    except Exception as error:
        traceback.print_exc()
        if type(error).__module__.partition(".")[0] in ("builtins", "rlstack"):
            raise
        raise RuntimeError(f"{type(error).__name__}: {error}") from None


def _sample_gpus(name: str, gpus: Sequence[str]) -> None:
    """Have the GPUs of this process sampled; what keeps NVML from it goes to the log."""
    if not gpus:
        return
    try:
        nvml.GpuSampler(name, gpus).start()
    except nvml.NvmlError as error:
        print(f"NVML does not tell of GPU {', '.join(gpus)}: {error}")
