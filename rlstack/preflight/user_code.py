"""Plug-in rewards and losses, each imported and made in a child first: they may crash, or never come back."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from rlstack.child_process import Process, last_json, last_line, run
from rlstack.config.own_code import MAIN
from rlstack.config.reward_names import is_plugin
from rlstack.config.tasks import tasks_by_setting
from rlstack.preflight.planned import Planned
from rlstack.rewards.plugin import handed_over
from rlstack.user_code import place_in_dump

LOSS_S = 120.0  # for a loss to be imported and made
GRACE_S = 10.0  # beyond a limit, at which the child ends itself and says where it was
WORKER = "rlstack.preflight.user_code_worker"
REMEDY = "correct it, or name a {} that Python can import from the working directory or PYTHONPATH"
TIMED_OUT = "Timeout ("  # how faulthandler begins


def rewards(planned: Planned) -> Iterator[str]:
    """Every plug-in that a task names, side by side."""
    named: dict[str, str] = {}  # plug-in: the first setting that names it
    for key, task in tasks_by_setting(planned.config).items():
        if is_plugin(task.reward):
            named.setdefault(task.reward, f"{key}.reward")
    if not named:
        return
    limit_s = planned.config.reward.plugin_start_timeout_s
    with ThreadPoolExecutor(max_workers=len(named)) as pool:
        found = pool.map(lambda name: _reward(name, named[name], planned, limit_s), named)
        for (name, key), problem in zip(named.items(), found, strict=True):
            if problem is not None:
                yield f"{key} = {name}: {problem}"


def loss(planned: Planned) -> Iterator[str]:
    """The loss that objective.loss names, unless it was given."""
    name = planned.config.objective.loss
    if name is None or planned.own.loss is not None or not is_plugin(name):
        return
    request = {"kind": "loss", "paths": [*sys.path, os.getcwd()], "limit_s": LOSS_S}
    if (problem := _problem(name, request, planned.children)) is not None:
        yield f"objective.loss = {name}: {problem}; {REMEDY.format('loss')}"


def _reward(name: str, setting: str, planned: Planned, limit_s: float) -> str | None:
    request = {"kind": "reward", "paths": [os.getcwd()], "limit_s": limit_s}
    given = planned.own.rewards.get(name)
    if given is None:
        if name.startswith(f"{MAIN}:"):  # it has been said that it was not given
            return None
        problem = _problem(name, request, planned.children)
        return None if problem is None else f"{problem}; {REMEDY.format('function or class')}"
    (descriptor,) = handed_over(given, setting, name)
    try:
        problem = _problem(name, request, planned.children, descriptor)
    finally:
        os.close(descriptor)
    return None if problem is None else f"{problem}; correct what is given"


def _problem(
    name: str, request: dict[str, Any], children: list[Process], descriptor: int | None = None
) -> str | None:
    """What is wrong with what `name` stands for; None: nothing."""
    asked = json.dumps({**request, "name": name, "descriptor": descriptor})
    fds = [] if descriptor is None else [descriptor]
    limit_s = request["limit_s"]
    done = run(["-m", WORKER, asked], limit_s=limit_s + GRACE_S, running=children, pass_fds=fds)
    if done is None:
        return f"it was not imported within {limit_s:g} s"
    if (answer := last_json(done.stdout)) is not None:
        return str(answer["problem"]) if answer["problem"] is not None else None
    place = place_in_dump(done.stderr)
    where = "" if place is None else f"{place}: "
    if TIMED_OUT in done.stderr:
        return f"{where}it was not imported within {limit_s:g} s"
    if done.returncode < 0:
        return f"{where}its import ended the process with {signal.Signals(-done.returncode).name}"
    said = last_line(done.stderr)
    return f"{where}its import ended the process with status {done.returncode}{f' ({said})' if said else ''}"
