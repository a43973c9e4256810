"""What a run needs of others: the cluster that it joins, and the servers that its loggers write to.

Each is asked by a child, for the packages wait for minutes, print, and leave threads behind.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from rlstack.child_process import Process, last_json, last_line, run
from rlstack.config.loggers import logger_problems, missing_packages, wanted
from rlstack.preflight.planned import Planned

CLUSTER_S = 60.0  # for the cluster to be joined
LOGGER_S = 60.0  # for a logger's server to answer


def cluster(planned: Planned) -> Iterator[str]:
    """Join the cluster at cluster.address, and leave it."""
    address = planned.config.cluster.address
    if address is None or "://" in address:  # which has been refused
        return
    why, has_answered = _asked(["rlstack.preflight.join_cluster", address], CLUSTER_S, planned.children)
    if why is not None:
        yield why if has_answered else f"cluster.address = {address}: it could not be joined: {why}"


def loggers(planned: Planned) -> Iterator[str]:
    """Each logger's package, login and server, side by side."""
    telemetry = planned.config.telemetry
    if logger_problems(telemetry) or missing_packages(telemetry) or not (targets := wanted(telemetry)):
        return
    from rlstack.telemetry.loggers.loggers import refusal

    def ask(name: str) -> str | None:
        module = "rlstack.telemetry.loggers.login"
        return _asked([module, name, str(targets[name])], LOGGER_S, planned.children)[0]

    with ThreadPoolExecutor(max_workers=len(targets)) as pool:
        for name, why in zip(targets, pool.map(ask, targets), strict=True):
            if why is not None:
                yield refusal(name, targets[name], why)


def _asked(arguments: list[str], limit_s: float, children: list[Process]) -> tuple[str | None, bool]:
    """The problem that a child prints, None if there is none; and whether it has come to print it."""
    done = run(["-m", *arguments], limit_s=limit_s, running=children)
    if done is None:
        return f"no answer within {limit_s:g} s", False
    if (answer := last_json(done.stdout)) is None:
        return last_line(done.stderr) or f"the process that asked ended with {done.returncode}", False
    return None if answer["problem"] is None else str(answer["problem"]), True
