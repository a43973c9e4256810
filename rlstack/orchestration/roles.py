"""A role: one object that lives in a Ray process of its own, with its output in a log file.

The controller never imports what a role imports (megatron, vLLM): it sends a builder, a plain function, which
imports and builds the object in the role's process after that process's output has been redirected. It calls
the methods that a protocol declares (protocols.py):

    calls = [role.start(PolicyRank.train_step, batches) for role in roles]
    metrics = wait_for(calls, timeout_s=..., doing="training", setting="policy.step_timeout_s")
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, cast

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError, RayTaskError

from rlstack.errors import ConfigError, UserCodeError
from rlstack.files import DISK_REMEDIES
from rlstack.orchestration.home import Home
from rlstack.orchestration.nodes import lost_nodes
from rlstack.orchestration.processes import Processes, end_everywhere
from rlstack.orchestration.role_host import Answer, Host, Method
from rlstack.telemetry import clocks, timeline
from rlstack.telemetry.clocks import RoleClock
from rlstack.transfer.errors import TransferError

ANYWHERE = Home()
BESIDE = "beside"  # Ray's concurrency group of the calls that do not wait for those under way
POLL_S = 0.2  # how soon one who waits for a stream sees that nobody needs it any more
WATCH_S = 5.0  # how often one who waits for roles looks whether Ray has given up their nodes
NOTED_S = 0.1  # for the processes of roles that were noted a moment ago
RESULT_S = 60.0  # for a result that is there to come to this process
# Exceptions of those who have lost another process, vLLM's workers or a rank of their own group.
SYMPTOMS = re.compile(
    r"EngineDeadError|died unexpectedly|Executor failed|(connection|socket) (reset|refused|closed)|"
    r"pair closure|broken pipe|timed out|timeout",
    re.IGNORECASE,
)
DEATH_S = 2.0  # how much later than those who talk to it Ray may notice that a process has died

T_co = TypeVar("T_co", covariant=True)  # the protocol of a role's object
P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class RoleError(RuntimeError):
    """A call to a role that has failed; the message names the role and the cause.

    As such, the same would happen to another process in the role's place.
    """


class UserCodeFailed(RoleError, UserCodeError):
    """Code of the user's own has raised an exception in a role."""


class NodeLost(RoleError):
    """A node was lost, and no other one can take what was there."""


class RoleLost(RoleError):
    """A role died, failed or did not answer in time; another process in its place may do better."""

    def __init__(
        self, message: str, *, role: Role[object], is_late: bool = False, exception: str | None = None
    ) -> None:
        super().__init__(message)
        self.role = role
        self.is_late = is_late  # it has not answered, but may still be there
        self.exception = exception  # of Python, which may come again; None: the process was lost

    @property
    def reason(self) -> str:
        """In one line: the call, and what became of the role."""
        return str(self).partition("\n")[0]


class EngineLost(RoleLost):
    """An engine was lost."""


class RewardModelLost(RoleLost):
    """A copy of a reward model was lost."""


class BackToCheckpoint(RoleLost):
    """The loss of a state that is nowhere else: the run continues from its newest checkpoint."""


class PolicyLost(BackToCheckpoint):
    """A rank of the policy was lost."""


class OlderVersionLost(BackToCheckpoint):
    """An engine was lost with rollouts still to sample of a version that nobody holds any more."""


class Role(Generic[T_co]):
    """The controller's handle of a role whose object satisfies the protocol `T_co`.

    Calls are carried out one after the other, in the order in which they were made; with `beside` the role
    also takes calls that do not wait for their turn.
    """

    def __init__(
        self,
        name: str,
        *,
        log: Path,
        build: Callable[[], T_co],
        home: Home = ANYWHERE,
        beside: bool = False,
        lost: type[RoleLost] = RoleLost,
    ) -> None:
        """build: makes the object, in the role's process; lost: what is raised when the role dies, fails or
        does not answer in time.
        """
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
        self._actor = host.remote(name, log, build, home.gpus, home.environment, seen)
        self._processes: ray.ObjectRef[Processes] = self._actor.processes.remote()

    @property
    def title(self) -> str:
        """Its name and, on a cluster, the address of its node: for messages."""
        return f"{self.name} (node {self.home.address})" if self.home.address else self.name

    def start(
        self, method: Callable[Concatenate[T_co, P], R], /, *args: P.args, **kwargs: P.kwargs
    ) -> Call[R]:
        """Call `method` of the role's object; returns at once."""
        return Call(self, self._actor.call.remote(timeline.now_s(), *Method.of(method), *args, **kwargs))

    def start_beside(
        self, method: Callable[Concatenate[T_co, P], R], /, *args: P.args, **kwargs: P.kwargs
    ) -> Call[R]:
        """As `start`, at once and from another thread, whatever else the role is doing (`beside` roles)."""
        call = self._actor.call.options(concurrency_group=BESIDE)
        return Call(self, call.remote(timeline.now_s(), *Method.of(method), *args, **kwargs))

    def stream(
        self, method: Callable[Concatenate[T_co, P], Iterator[R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Stream[R]:
        """As `start`, of a method that is a generator; see `yielded`."""
        stream, called = self._actor.stream.options(num_returns="streaming"), Method.of(method)
        return Stream(self, called.phase, stream.remote(timeline.now_s(), *called, *args, **kwargs))

    def note_processes(self) -> None:
        """Note which processes the role has by now, once it has done what it was called for before."""
        self._processes = self._actor.processes.remote()

    def processes(self, *, timeout_s: float = 0.0) -> Processes | None:
        """As they were noted last; None if the role has not come to that."""
        with suppress(RayError, GetTimeoutError):
            return ray.get(self._processes, timeout=timeout_s)
        return None

    def pid(self) -> int:
        """Of the role's process, on whichever node it is."""
        processes = self.processes(timeout_s=RESULT_S)
        assert processes is not None, f"{self.name} has not come up"
        return processes.members[0][0]

    def kill(self) -> None:
        """End the role and what it has started, for certain, whatever state it is in."""
        kill_roles([self])


def kill_roles(roles: Sequence[Role[object]]) -> None:
    """As Role.kill for each, all at the same time: one call per node, however many roles are on it.

    A node that is lost delays the others by nothing, and the return by processes.KILL_TIMEOUT_S at most.
    """
    noted = [role._processes for role in roles]
    ray.wait(noted, num_returns=len(noted), timeout=NOTED_S)
    end_everywhere([found for role in roles if (found := role.processes()) is not None])
    for role in roles:
        ray.kill(role._actor, no_restart=True)


class Call(Generic[R_co]):
    """A call to a role, which may still be under way."""

    def __init__(self, role: Role[object], ref: ray.ObjectRef[Answer]) -> None:
        self.role = role
        self.ref = ref
        self._outcome: Answer | RoleError | None = None

    @property
    def result(self) -> R_co:
        """The value that the method has returned, after wait_for()."""
        assert isinstance(self._outcome, Answer), "wait_for comes first"
        return cast(R_co, self._outcome.result)

    def outcome(self, doing: str) -> Answer | RoleError:
        """The answer to the call, which is done, or the error that kept it from one.

        The result is deserialised once, here: of rollouts, that is the largest part of the cost.
        """
        if self._outcome is None:
            arrived_s = timeline.now_s()
            self._outcome = outcome = _outcome(self.role, self.ref, doing)
            if isinstance(outcome, Answer):
                _note(self.role, outcome, arrived_s)
        return self._outcome


class Stream(Generic[R_co]):
    """A call whose results come one by one."""

    def __init__(self, role: Role[object], phase: str, items: ray.ObjectRefGenerator[Answer]) -> None:
        self.role = role
        self.phase = phase
        self.items = items


def shared(value: R) -> R:
    """`value`, put into Ray's object store once, as an argument of calls to several roles.

    It is typed as the value, in whose place Ray puts it before a method gets it.
    """
    return cast(R, ray.put(value))


def wait_for(calls: Sequence[Call[R]], *, timeout_s: float, doing: str, setting: str) -> list[R]:
    """The results of calls to roles, in the order given.

    Returns as soon as all are there. The first failure, death or lapse of `timeout_s` (for all together,
    `setting` is where to raise it) raises the role's own RoleLost naming it, what it was doing and its log;
    RoleError if another process would fail as well.
    """
    by_ref = {call.ref: call for call in calls}
    pending, deadline = list(by_ref), time.monotonic() + timeout_s
    watch_s = WATCH_S if any(call.role.home.node for call in calls) else timeout_s
    while pending:
        # One at a time: when one role fails, the others may be waiting for it and would never finish.
        left_s = max(0.0, deadline - time.monotonic())
        done, pending = ray.wait(pending, num_returns=1, timeout=min(left_s, watch_s))
        if not done:
            roles = [by_ref[ref].role for ref in pending]
            if (gone := _without_node(roles, doing)) is not None:
                raise gone
            if left_s > watch_s:
                continue
            raise _late(roles, doing, f"{timeout_s:g} s ({setting})")
        if isinstance(outcome := by_ref[done[0]].outcome(doing), RoleError):
            # It may only have noticed first that another one has died.
            raise _death([by_ref[ref] for ref in pending], doing) or outcome
    return [call.result for call in calls]


def silent_or_dead(
    calls: Sequence[Call[object]], *, timeout_s: float, doing: str, within: str
) -> RoleLost | None:
    """The loss of a role that has died, or else of one that does not even fail within `timeout_s` more.

    within: the limit in the message's words, with the setting that it comes from.
    """
    by_ref = {call.ref: call for call in calls}
    if not by_ref:
        return None
    done, silent = ray.wait(list(by_ref), num_returns=len(by_ref), timeout=timeout_s)
    for ref in done:
        if isinstance(lost := by_ref[ref].outcome(doing), RoleLost):
            return lost
    return _late([by_ref[ref].role for ref in silent], doing, within) if silent else None


def yielded(
    stream: Stream[R], *, is_needed: Callable[[], bool], timeout_s: float, doing: str, setting: str
) -> Iterator[R]:
    """The items of `stream` as they come; ends early once they are not needed any more.

    Raises as `wait_for`; `timeout_s` is for each item.
    """
    role, items, deadline = stream.role, stream.items, time.monotonic() + timeout_s
    with timeline.asked(role.name, stream.phase):
        while is_needed():
            ready, _ = ray.wait([items], timeout=POLL_S)
            if not ready:
                if time.monotonic() > deadline:
                    raise _late([role], doing, f"{timeout_s:g} s ({setting})")
                continue
            try:
                item: Call[R] = Call(role, next(items))
            except StopIteration:
                return
            if isinstance(outcome := item.outcome(doing), RoleError):
                raise outcome
            yield item.result
            deadline = time.monotonic() + timeout_s


def _note(role: Role[object], answer: Answer, arrived_s: float) -> None:
    """Keep what `role` has done for the timeline; `answer` arrived at `arrived_s`."""
    role.clock.read(answer.reading, arrived_s)
    clocks.keep(role.clock, answer.spans, answer.samples)


def _outcome(role: Role[object], ref: ray.ObjectRef[Answer], doing: str) -> Answer | RoleError:
    log = f"\n  its log: {role.log}"
    try:
        return ray.get(ref, timeout=RESULT_S)
    except RayTaskError as error:
        return _from(_failed(role, error.cause, doing, log), error)
    except RayActorError as error:
        return _from(role.lost(f"{doing}: {role.title} died{log}", role=role), error)
    except GetTimeoutError as error:
        return _from(role.lost(f"{doing}: the result of {role.title} did not arrive{log}", role=role), error)


def _failed(role: Role[object], cause: BaseException, doing: str, log: str) -> RoleError:
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


def _death(pending: Sequence[Call[object]], doing: str) -> RoleError | None:
    """The first of `pending` whose process turns out to have died."""
    by_ref = {call.ref: call for call in pending}
    left, deadline = list(by_ref), time.monotonic() + DEATH_S
    while left and (left_s := deadline - time.monotonic()) > 0:
        done, left = ray.wait(left, num_returns=1, timeout=left_s)
        for ref in done:
            outcome = by_ref[ref].outcome(doing)
            if isinstance(outcome, RoleError) and isinstance(outcome.__cause__, RayActorError):
                return outcome
    return None


def _without_node(roles: Sequence[Role[object]], doing: str) -> RoleLost | None:
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


def _late(roles: Sequence[Role[object]], doing: str, within: str) -> RoleLost:
    names, first = ", ".join(role.title for role in roles), roles[0]
    message = f"{doing}: no answer from {names} within {within}"
    return first.lost(message, role=first, is_late=True)


def _from(error: RoleError, cause: BaseException) -> RoleError:
    error.__cause__ = cause
    return error
