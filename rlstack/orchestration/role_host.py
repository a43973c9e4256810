"""The host of a role: the Ray actor that builds the role's object, calls its methods and times them."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TypeVar

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

_END = object()
_MARK = "rlstack_method"

F = TypeVar("F", bound=Callable[..., object])


class Method(NamedTuple):
    """A method of the object in a role's process; its fields travel with each call.

    One by one, because Ray sends plain values without pickle.
    """

    name: str
    phase: str  # of the role on the timeline, while the method runs
    opens_connections: bool = False  # the builders of the other methods' objects do

    @classmethod
    def of(cls, function: Callable[..., object]) -> Method:
        """The method that `function` of a protocol declares; its phase is by default its name."""
        declared: Method = getattr(function, _MARK, cls(function.__name__, function.__name__))
        return declared


def phase(name: str, *, opens_connections: bool = False) -> Callable[[F], F]:
    """Declare the phase of a method that is called in a role's process; see Method."""

    def declare(function: F) -> F:
        setattr(function, _MARK, Method(function.__name__, name, opens_connections))
        return function

    return declare


class Answer(NamedTuple):
    """A result on its way back from a role, with what the role has done since its last answer."""

    result: object
    spans: list[Span]
    samples: list[nvml.Sample]
    reading: Reading  # spans and samples are on this clock

    @classmethod
    def of(cls, result: object, *, asked_s: float | None, begun_s: float) -> Answer:
        spans, samples = timeline.take(), nvml.take()
        address, dropped = ray.util.get_node_ip_address(), timeline.num_dropped()
        reading = Reading(address, asked_s, begun_s, timeline.now_s(), dropped)
        return cls(result, spans, samples, reading)


class Host:
    """An object in a process of its own."""

    def __init__(
        self,
        name: str,
        log: Path,
        build: Callable[[], object],
        gpus: tuple[str, ...],
        environment: Mapping[str, str],
        sampled_gpus: Sequence[str],
    ) -> None:
        capture_output(log)
        settle(gpus, environment)
        print(f"{name} on node {ray.util.get_node_ip_address()}, GPUs {', '.join(gpus) or 'none'}")
        timeline.act_as(name)
        _sample_gpus(name, sampled_gpus)
        self._target: object = None
        self._broken: Exception | None = None  # why there is no target
        try:
            with timeline.span("start_up"), _own_words():
                refuse_foreign_modules()
                self._target = build()
                _stay_on_loopback()
        except Exception as error:  # Ray would tell the driver of it as a long text
            traceback.print_exc()
            self._broken = error

    def processes(self) -> Processes:
        return own_processes()

    def call(
        self,
        asked_s: float,
        name: str,
        phase: str,
        opens_connections: bool,
        /,
        *args: object,
        **kwargs: object,
    ) -> Answer:
        """Call the method that `name` to `opens_connections` describe, as the fields of Method.

        asked_s: now, by the driver's clock. Raises what kept the object from being built.
        """
        begun_s = timeline.now_s()
        if self._broken is not None:
            raise self._broken
        with timeline.span(phase), _own_words():
            result = getattr(self._target, name)(*args, **kwargs)
            if opens_connections:
                _stay_on_loopback()
        return Answer.of(result, asked_s=asked_s, begun_s=begun_s)

    def stream(
        self,
        asked_s: float | None,
        name: str,
        phase: str,
        opens_connections: bool,
        /,
        *args: object,
        **kwargs: object,
    ) -> Iterator[Answer]:
        """As `call`, of a method that is a generator; one answer per item."""
        begun_s = timeline.now_s()
        items = getattr(self._target, name)(*args, **kwargs)
        while True:
            with timeline.span(phase), _own_words():
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
