"""The process of a plug-in: `python -P -m rlstack.rewards.plugin_worker MODULE:ATTRIBUTE [DESCRIPTOR]`.

With a descriptor, the plug-in is what was handed over there instead of what can be imported.

Writes "ready" once the plug-in is imported, or why it cannot be. Then reads one JSON line `[problem, answer,
responses]` at a time and writes one JSON line: `{"rewards": [float | null, ...]}` or `{"error": str}`. To the
line `null` it writes what the plug-in says of its rewards: `{"verdicts": bool}`.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from rlstack.config.own_code import load_named
from rlstack.rewards.handover import take_over
from rlstack.user_code import in_one_line, look_last_in

Plugin = Callable[[str, str | None, Sequence[str]], Sequence[float | None]]

PARENT_CHECK_S = 1.0
MAX_CHARS = 500  # of what is said of an exception


def main(name: str, descriptor: str | None = None) -> None:
    """Answer requests from stdin until it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's business
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    # The plug-in may print and read: both pipes are kept for requests and replies alone.
    requests = os.fdopen(os.dup(sys.stdin.fileno()), encoding="utf-8")
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1, encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_RDONLY), sys.stdin.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    look_last_in([os.getcwd()])
    try:
        found = load_named(name) if descriptor is None else take_over(int(descriptor))
        plugin = as_plugin(found, name)
    except Exception as error:
        print(_in_one_line(error), file=replies)
        return
    verdicts = getattr(found, "verdicts", False) is True
    print("ready", file=replies)
    for line in requests:
        request = json.loads(line)
        reply = {"verdicts": verdicts} if request is None else reply_of(plugin, *request, verdicts=verdicts)
        print(json.dumps(reply), file=replies)


def as_plugin(found: Any, name: str) -> Plugin:
    """The function, or the `score` of an object or of a class made without arguments, that `found` is.

    Raises:
        TypeError: it cannot be called.
        Exception: whatever making it raises.
    """
    if isinstance(found, type):
        found = found()
    plugin: Plugin = getattr(found, "score", found)
    if not callable(plugin):
        raise TypeError(f"{name.partition(':')[2]} is neither a function nor does it have a method score")
    return plugin


def reply_of(
    plugin: Plugin, problem: str, answer: str | None, responses: list[str], *, verdicts: bool = False
) -> dict[str, Any]:
    """The plug-in's rewards as numbers, or what is wrong with them. verdicts: 0 and 1 alone are accepted."""
    try:
        rewards = [None if reward is None else float(reward) for reward in plugin(problem, answer, responses)]
    except Exception as error:
        return {"error": _in_one_line(error)}
    if len(rewards) != len(responses):
        return {"error": f"it returned {len(rewards)} rewards for {len(responses)} responses"}
    if verdicts and (others := set(rewards) - {0.0, 1.0, None}):
        return {"error": f"it returned {others.pop()}, and its attribute `verdicts` promises 0 and 1"}
    return {"rewards": rewards}


def _in_one_line(error: Exception) -> str:
    return in_one_line(error)[:MAX_CHARS]


def _end_with(parent: int) -> None:
    """End this process after its parent, also while the plug-in computes."""
    while os.getppid() == parent:
        time.sleep(PARENT_CHECK_S)
    os._exit(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
