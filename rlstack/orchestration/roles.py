"""A role: one object that lives in a Ray process of its own, with its output in a log file.

The driver never imports what a role imports (megatron, vLLM): it sends a builder, a plain function, which
imports and builds the object over there after that process's output has been redirected.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError

from rlstack.telemetry import nvml, timeline
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
    "begin_send": "sync",
    "begin_receive": "sync",
    "commit_receive": "sync",
    "fence": "sync",
    "probe": "sync",
    "serve": "start_up",
    "start": "start_up",
    "warm_up": "start_up",
}

BESIDE = "beside"  # Ray's concurrency group of the calls that do not wait for those under way
POLL_S = 0.2  # how soon one who waits for a stream sees that nobody needs it any more


_END = object()


class RoleError(RuntimeError):
    """A role failed, died or did not answer in time; the message names it and its log."""


class Answer(NamedTuple):
    """What travels back from a role: a result, and what the role has done since its last answer."""

    result: Any
    spans: list[Span]
    samples: list[nvml.Sample]

    @classmethod
    def of(cls, result: Any) -> Answer:
        return cls(result, timeline.take(), nvml.take())


class Stream(NamedTuple):
    """A call of which the results come one by one."""

    phase: str
    items: ray.ObjectRefGenerator


class _Host:
    """Runs in the role's process."""

    def __init__(self, name: str, log: Path, build: Builder, kwargs: Mapping[str, Any]) -> None:
        capture_output(log)
        timeline.act_as(name)
        _sample_gpus(name)
        with timeline.span("start_up"):
            self._target = build(**kwargs)

    def pid(self) -> int:
        return os.getpid()

    def call(self, method: str, /, *args: Any, **kwargs: Any) -> Answer:
        with timeline.span(phase_of(method)):
            result = getattr(self._target, method)(*args, **kwargs)
        return Answer.of(result)

    def stream(self, method: str, /, *args: Any, **kwargs: Any) -> Iterator[Answer]:
        items = getattr(self._target, method)(*args, **kwargs)
        while True:
            with timeline.span(phase_of(method)):
                item = next(items, _END)
            if item is _END:
                return
            yield Answer.of(item)


def _sample_gpus(name: str) -> None:
    """Have the GPUs that Ray has given to this process sampled; what keeps NVML from it goes to the log."""
    gpus = [str(gpu) for gpu in ray.get_gpu_ids()]
    if not gpus:
        return
    try:
        nvml.GpuSampler(name, gpus).start()
    except nvml.NvmlError as error:
        print(f"NVML does not tell of GPU {', '.join(gpus)}: {error}")


class Role:
    """The driver's handle. `role.start("method", ...)` returns an object reference at once.

    Calls are carried out one after the other, in the order in which they were made; with `beside` the role
    also takes calls that do not wait for their turn.
    """

    def __init__(
        self,
        name: str,
        *,
        log: Path,
        build: Builder,
        num_gpus: int = 0,
        beside: bool = False,
        **kwargs: Any,
    ) -> None:
        self.name = name
        self.log = log
        # The group of its own is not for every role: in a process that has one, Ray makes no call from the
        # main thread.
        groups = {"concurrency_groups": {BESIDE: 1}} if beside else {}
        remote: Any = ray.remote  # Ray's own types do not know an actor's methods
        host = remote(num_cpus=0, num_gpus=num_gpus, max_concurrency=1, **groups)(_Host)
        self._actor = host.remote(name, log, build, kwargs)

    def start(self, method: str, /, *args: Any, **kwargs: Any) -> ray.ObjectRef:
        return self._actor.call.remote(method, *args, **kwargs)

    def start_beside(self, method: str, /, *args: Any, **kwargs: Any) -> ray.ObjectRef:
        """As `start`, at once and from another thread, whatever else the role is doing (`beside` roles)."""
        return self._actor.call.options(concurrency_group=BESIDE).remote(method, *args, **kwargs)

    def stream(self, method: str, /, *args: Any, **kwargs: Any) -> Stream:
        """As `start`, of a method that is a generator; see `yielded`."""
        items = self._actor.stream.options(num_returns="streaming").remote(method, *args, **kwargs)
        return Stream(phase_of(method), items)

    def pid(self) -> int:
        """Of the role's process, on whichever node it is."""
        return int(ray.get(self._actor.pid.remote()))


def wait_for(
    calls: Mapping[Role, ray.ObjectRef], *, timeout_s: float, doing: str, setting: str
) -> dict[Role, Any]:
    """The results of one call to each role, in the order given.

    Returns as soon as all are there. The first failure, death or lapse of `timeout_s` (for all together,
    `setting` is where to raise it) raises RoleError naming the role, what it was doing and its log.
    """
    roles = {ref: role for role, ref in calls.items()}
    pending, deadline = list(roles), time.monotonic() + timeout_s
    while pending:
        # One at a time: when one role fails, the others may be waiting for it and would never finish.
        left_s = max(0.0, deadline - time.monotonic())
        done, pending = ray.wait(pending, num_returns=1, timeout=left_s)
        if not done:
            late = ", ".join(roles[ref].name for ref in pending)
            raise RoleError(f"{doing}: no answer from {late} within {timeout_s:g} s ({setting})")
        _raise_failure(roles[done[0]], done[0], doing)
    return {role: received(ref) for role, ref in calls.items()}


def yielded(
    role: Role,
    stream: Stream,
    *,
    is_needed: Callable[[], bool],
    timeout_s: float,
    doing: str,
    setting: str,
) -> Iterator[Any]:
    """What `role` yields in `stream`, a call of its own, as it comes; ends early once it `is_needed` no more.

    Raises RoleError as `wait_for`; `timeout_s` is for each item.
    """
    items, deadline = stream.items, time.monotonic() + timeout_s
    with timeline.asked(role.name, stream.phase):
        while is_needed():
            ready, _ = ray.wait([items], timeout=POLL_S)
            if not ready:
                if time.monotonic() > deadline:
                    raise RoleError(f"{doing}: no answer from {role.name} within {timeout_s:g} s ({setting})")
                continue
            try:
                ref = next(items)
            except StopIteration:
                return
            _raise_failure(role, ref, doing)
            yield received(ref)
            deadline = time.monotonic() + timeout_s


def received(ref: ray.ObjectRef) -> Any:
    """The result of a role's call, which is there; what the role has done goes to the timeline."""
    result, spans, samples = ray.get(ref)
    timeline.add(spans)
    nvml.add(samples)
    return result


def phase_of(method: str) -> str:
    """What the timeline calls the time in a role's `method`."""
    return PHASES.get(method, method)


def _raise_failure(role: Role, ref: ray.ObjectRef, doing: str) -> None:
    try:
        ray.get(ref, timeout=60.0)
    except RayTaskError as error:
        raise RoleError(f"{doing}: {role.name} failed: {error.cause}\n  its log: {role.log}") from error
    except RayActorError as error:
        raise RoleError(f"{doing}: {role.name} died\n  its log: {role.log}") from error
    except GetTimeoutError as error:
        raise RoleError(
            f"{doing}: the result of {role.name} did not arrive\n  its log: {role.log}"
        ) from error
