"""The child that imports code of the user's own: `python -m rlstack.preflight.user_code_worker JSON`.

It may raise, crash, end this process or never come back. Its last line on standard output is a JSON object:
{"problem": str | null}. At the limit, faulthandler writes to standard error where the code has got to.
"""

from __future__ import annotations

import faulthandler
import inspect
import json
import os
import sys
from collections.abc import Callable
from typing import Any

from rlstack.config.own_code import load_named
from rlstack.errors import ConfigError
from rlstack.rewards.handover import take_over
from rlstack.rewards.plugin_worker import as_plugin
from rlstack.user_code import in_one_line, look_last_in


def main(request: str) -> None:
    """Make what `request` (see user_code.py) names, and say what is wrong with it."""
    asked = json.loads(request)
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # the code may print
    faulthandler.enable()
    faulthandler.dump_traceback_later(asked["limit_s"], exit=True)
    look_last_in(asked["paths"])
    try:
        problem = MAKE[asked["kind"]](asked["name"], asked["descriptor"])
    except ConfigError as error:
        problem = str(error)
    except BaseException as error:  # SystemExit too
        problem = in_one_line(error)
    print(json.dumps({"problem": problem}), file=answers, flush=True)
    os._exit(0)  # whatever threads the code has started


def _reward(name: str, descriptor: int | None) -> str | None:
    plugin = as_plugin(load_named(name) if descriptor is None else take_over(descriptor), name)
    return _not_called_with(plugin, "problem", "answer", "responses")


def _loss(name: str, descriptor: int | None) -> str | None:
    assert descriptor is None, "a loss that is given has been imported"
    found = load_named(name)
    loss = found() if isinstance(found, type) else found
    return _not_called_with(loss, "inputs") if callable(loss) else None  # load_loss says the rest


def _not_called_with(called: Callable[..., Any], *arguments: str) -> str | None:
    try:
        inspect.signature(called).bind(*arguments)
    except TypeError as error:
        return f"TypeError: it is called with ({', '.join(arguments)}), and takes others: {error}"
    except ValueError:  # of what is not written in Python
        return None
    return None


MAKE = {"reward": _reward, "loss": _loss}

if __name__ == "__main__":
    main(sys.argv[1])
