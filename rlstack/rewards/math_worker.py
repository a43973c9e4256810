"""The process that compares answers: `python -P -m rlstack.rewards.math_worker TIMEOUT_S`.

Reads one JSON line `[[gold, answer], ...]` at a time and writes one JSON line `{"replies": [...]}`, with
`{"equal": bool}` for each pair, or `{"error": str}` if that raised. `[gold, null]` tells if the gold answer
is read as a value. It writes "ready" once the imports are done.

sympy can compute for hours inside one C call, where Python runs no signal handler and no other thread. The
limit is therefore a kernel timer whose signal has its default action: it ends the process, and the exit
status says so. The same timer bounds how long a computation outlives a parent that was killed; between
computations the end of stdin is the end of the process.
"""

from __future__ import annotations

import json
import logging
import os
import resource
import signal
import sys
from typing import Any

from rlstack.rewards.math_compare import is_equal, is_value

START_LIMIT_S = 300.0  # for the imports, on a machine that is busy
MEMORY_LIMIT_GIB = 4  # of address space: 10^(10^10) must not take the machine's memory


def main(timeout_s: float) -> None:
    """Answer requests from stdin until it ends, each pair within `timeout_s` seconds or not at all."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's business
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT_GIB << 30, MEMORY_LIMIT_GIB << 30))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # antlr and sympy may print: stdout is kept for answers alone.
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    signal.setitimer(signal.ITIMER_REAL, START_LIMIT_S)
    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that its own timeouts are off
    assert is_equal("x+1/2", "2/4+x")  # the first call pays for the imports and the regular expressions
    signal.setitimer(signal.ITIMER_REAL, 0)
    print("ready", file=replies)

    for line in sys.stdin:
        found = []
        for gold, answer in json.loads(line):
            signal.setitimer(signal.ITIMER_REAL, timeout_s)
            found.append(_reply(gold, answer))
            signal.setitimer(signal.ITIMER_REAL, 0)
        print(json.dumps({"replies": found}), file=replies)


def _reply(gold: str, answer: str | None) -> dict[str, Any]:
    try:
        return {"equal": is_value(gold) if answer is None else is_equal(gold, answer)}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"[:200]}


if __name__ == "__main__":
    main(float(sys.argv[1]))
