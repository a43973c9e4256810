"""A role: one object that lives in a Ray process of its own, with its output in a log file.

The driver never imports what a role imports (megatron, vLLM): it sends a builder, a plain function, which
imports and builds the object over there after that process's output has been redirected.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError, RayTaskError

from rlstack.errors import ConfigError, UserCodeError
from rlstack.files import DISK_REMEDIES
from rlstack.orchestration.home import Home
from rlstack.orchestration.nodes import lost_nodes
from rlstack.orchestration.processes import Processes, end_processes
from rlstack.orchestration.role_errors import RoleError, RoleLost, UserCodeFailed
from rlstack.orchestration.role_host import Answer, Builder, Host, phase_of
from rlstack.telemetry import clocks, timeline
from rlstack.telemetry.clocks import RoleClock
from rlstack.transfer.errors import TransferError

ANYWHERE = Home()
BESIDE = "beside"  # Ray's concurrency group of the calls that do not wait for those under way
POLL_S = 0.2  # how soon one who waits for a stream sees that nobody needs it any more
WATCH_S = 5.0  # how often one who waits for roles looks whether Ray has given up their nodes
RESULT_S = 60.0  # for a result that is there to come to this process
# Exceptions of those who have lost another process, vLLM's workers or a rank of their own group.
SYMPTOMS = re.compile(
    r"EngineDeadError|died unexpectedly|Executor failed|(connection|socket) (reset|refused|closed)|"
    r"pair closure|broken pipe|timed out|timeout",
    re.IGNORECASE,
)
DEATH_S = 2.0  # how much later than those who talk to it Ray may notice that a process has died


class Stream(NamedTuple):
    """A call of which the results come one by one."""

    phase: str
    items: ray.ObjectRefGenerator


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
        home: Home = ANYWHERE,
        beside: bool = False,
        lost: type[RoleLost] = RoleLost,
        **kwargs: Any,
    ) -> None:
        """lost: what is raised when the role dies, fails or does not answer in time."""
        self.name = name
        self.log = log
        self.home = home
        self.lost = lost
        self.clock = RoleClock(name)
        # The group of its own is not for every role: in a process that has one, Ray makes no call from the
        # main thread.
        groups = {"concurrency_groups": {BESIDE: 1}} if beside else {}
        remote: Any = ray.remote  # Ray's own types do not know an actor's methods
        host = remote(max_concurrency=1, **home.options, **groups)(Host)
        seen = home.gpus if home.samples_gpus else ()
        self._actor = host.remote(name, log, build, kwargs, home.gpus, home.environment, seen)
        self._processes: ray.ObjectRef = self._actor.processes.remote()

    @property
    def title(self) -> str:
        """Its name and, on a cluster, the address of its node: for messages."""
        return f"{self.name} (node {self.home.address})" if self.home.address else self.name

    def start(self, method: str, /, *args: Any, **kwargs: Any) -> ray.ObjectRef:
        return self._actor.call.remote(timeline.now_s(), method, *args, **kwargs)

    def start_beside(self, method: str, /, *args: Any, **kwargs: Any) -> ray.ObjectRef:
        """As `start`, at once and from another thread, whatever else the role is doing (`beside` roles)."""
        call = self._actor.call.options(concurrency_group=BESIDE)
        return call.remote(timeline.now_s(), method, *args, **kwargs)

    def stream(self, method: str, /, *args: Any, **kwargs: Any) -> Stream:
        """As `start`, of a method that is a generator; see `yielded`."""
        stream = self._actor.stream.options(num_returns="streaming")
        items = stream.remote(timeline.now_s(), method, *args, **kwargs)
        return Stream(phase_of(method), items)

    def note_processes(self) -> None:
        """Note which processes the role has by now, once it has done what it was asked for before."""
        self._processes = self._actor.processes.remote()

    def processes(self, *, timeout_s: float = 0.0) -> Processes | None:
        """As they were noted last; None if the role has not come to that."""
        with suppress(RayError, GetTimeoutError):
            found: Processes = ray.get(self._processes, timeout=timeout_s)
            return found
        return None

    def pid(self) -> int:
        """Of the role's process, on whichever node it is."""
        processes = self.processes(timeout_s=RESULT_S)
        assert processes is not None, f"{self.name} has not come up"
        return processes.members[0][0]

    def kill(self) -> None:
        """End the role and what it has started, for certain, whatever state it is in."""
        if (processes := self.processes(timeout_s=0.1)) is not None:
            end_processes(processes)
        ray.kill(self._actor, no_restart=True)


def wait_for(
    calls: Mapping[Role, ray.ObjectRef], *, timeout_s: float, doing: str, setting: str
) -> dict[Role, Any]:
    """The results of one call to each role, in the order given.

    Returns as soon as all are there. The first failure, death or lapse of `timeout_s` (for all together,
    `setting` is where to raise it) raises the role's own RoleLost naming it, what it was doing and its log;
    RoleError if another process would fail as well.
    """
    roles = {ref: role for role, ref in calls.items()}
    pending, deadline = list(roles), time.monotonic() + timeout_s
    watch_s = WATCH_S if any(role.home.node for role in calls) else timeout_s
    results: dict[Role, Any] = dict.fromkeys(calls)
    while pending:
        # One at a time: when one role fails, the others may be waiting for it and would never finish.
        left_s = max(0.0, deadline - time.monotonic())
        done, pending = ray.wait(pending, num_returns=1, timeout=min(left_s, watch_s))
        if not done:
            if (gone := _without_node([roles[ref] for ref in pending], doing)) is not None:
                raise gone
            if left_s > watch_s:
                continue
            raise _late([roles[ref] for ref in pending], doing, f"{timeout_s:g} s ({setting})")
        role, arrived_s = roles[done[0]], timeline.now_s()
        if isinstance(outcome := _outcome(role, done[0], doing), RoleError):
            # It may only have noticed first that another one has died.
            raise _death(roles, pending, doing) or outcome
        results[role] = _noted(role, outcome, arrived_s)
    return results


def silent_or_dead(
    calls: Mapping[Role, ray.ObjectRef], *, timeout_s: float, doing: str, within: str
) -> RoleLost | None:
    """Who has died, or else who gives no answer to `calls`, not even a failure, within `timeout_s` more.

    within: the limit in the message's words, with the setting that it comes from.
    """
    roles = {ref: role for role, ref in calls.items()}
    if not roles:
        return None
    done, silent = ray.wait(list(roles), num_returns=len(roles), timeout=timeout_s)
    for ref in done:
        if isinstance(lost := _outcome(roles[ref], ref, doing), RoleLost):
            return lost
    return _late([roles[ref] for ref in silent], doing, within) if silent else None


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

    Raises as `wait_for`; `timeout_s` is for each item.
    """
    items, deadline = stream.items, time.monotonic() + timeout_s
    with timeline.asked(role.name, stream.phase):
        while is_needed():
            ready, _ = ray.wait([items], timeout=POLL_S)
            if not ready:
                if time.monotonic() > deadline:
                    raise _late([role], doing, f"{timeout_s:g} s ({setting})")
                continue
            try:
                ref = next(items)
            except StopIteration:
                return
            arrived_s = timeline.now_s()
            if isinstance(outcome := _outcome(role, ref, doing), RoleError):
                raise outcome
            yield _noted(role, outcome, arrived_s)
            deadline = time.monotonic() + timeout_s


def _noted(role: Role, answer: Answer, arrived_s: float) -> Any:
    """The result in `answer`, which arrived at `arrived_s`; what `role` has done is kept for the timeline."""
    role.clock.read(answer.reading, arrived_s)
    clocks.keep(role.clock, answer.spans, answer.samples)
    return answer.result


def _outcome(role: Role, ref: ray.ObjectRef, doing: str) -> Answer | RoleError:
    """The answer to the call, which is done, or the error that kept it from one.

    The result is deserialised here and nowhere else: of rollouts, that is the largest part of the cost.
    """
    log = f"\n  its log: {role.log}"
    try:
        answer: Answer = ray.get(ref, timeout=RESULT_S)
        return answer
    except RayTaskError as error:
        return _from(_failed(role, error.cause, doing, log), error)
    except RayActorError as error:
        return _from(role.lost(f"{doing}: {role.title} died{log}", role=role), error)
    except GetTimeoutError as error:
        return _from(role.lost(f"{doing}: the result of {role.title} did not arrive{log}", role=role), error)


def _failed(role: Role, cause: BaseException, doing: str, log: str) -> RoleError:
    """What to raise where a call has raised `cause`."""
    if isinstance(cause, UserCodeError):
        where = f"\n  in {role.title}, {doing}{log}"
        return UserCodeFailed(f"{cause}{where}", file=cause.file, line=cause.line)
    message = f"{doing}: {role.title} failed: {cause}{log}"
    if not _was_bad_luck(cause):
        return RoleError(message)
    exception = f"{type(cause).__name__}: {cause}"
    is_symptom = SYMPTOMS.search(exception) is not None
    return role.lost(message, role=role, exception=None if is_symptom else exception)


def _was_bad_luck(cause: BaseException) -> bool:
    """Whether another process in the role's place may do better."""
    of_the_disk = getattr(cause, "errno", None) in DISK_REMEDIES
    return not (isinstance(cause, ConfigError | TransferError) or of_the_disk)


def _death(
    roles: Mapping[ray.ObjectRef, Role], pending: Sequence[ray.ObjectRef], doing: str
) -> RoleError | None:
    """The first of `pending` whose process turns out to have died."""
    deadline = time.monotonic() + DEATH_S
    while pending and (left_s := deadline - time.monotonic()) > 0:
        done, pending = ray.wait(list(pending), num_returns=1, timeout=left_s)
        for ref in done:
            outcome = _outcome(roles[ref], ref, doing)
            if isinstance(outcome, RoleError) and isinstance(outcome.__cause__, RayActorError):
                return outcome
    return None


def _without_node(roles: Sequence[Role], doing: str) -> RoleLost | None:
    """The loss of the first of `roles` whose node Ray has given up.

    Ray itself says nothing of a role that was to start there: it waits for the node, which never comes back.
    """
    nodes = {role.home.node for role in roles if role.home.node}
    lost = lost_nodes(nodes) if nodes else set()
    for role in roles:
        if role.home.node in lost:
            message = f"{doing}: the node of {role.title} was lost\n  its log: {role.log}"
            return role.lost(message, role=role)
    return None


def _late(roles: Sequence[Role], doing: str, within: str) -> RoleLost:
    names, first = ", ".join(role.title for role in roles), roles[0]
    message = f"{doing}: no answer from {names} within {within}"
    return first.lost(message, role=first, is_late=True)


def _from(error: RoleError, cause: BaseException) -> RoleError:
    error.__cause__ = cause
    return error
