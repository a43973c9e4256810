"""The same as `rlstack doctor` where typer is missing too: python -P -m rlstack.doctor"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def main() -> int:
    """The exit status of `python -P -m rlstack.doctor`, with or without typer and rich."""
    if sys.hexversion < 0x030B0000:  # what follows does not compile there
        print(f"Python 3.11 or newer is needed, and {sys.executable} is {sys.version.split()[0]}")
        return 1
    from rlstack.doctor import LIMIT_S
    from rlstack.doctor.command import run
    from rlstack.doctor.examine import Request

    parser = argparse.ArgumentParser(
        prog="python -P -m rlstack.doctor", description="See rlstack doctor --help."
    )
    parser.add_argument("config", nargs="?", type=Path, metavar="CONFIG")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--only", action="append", default=[], metavar="NAME")
    parser.add_argument("--skip", action="append", default=[], metavar="NAME")
    parser.add_argument("--start", action="store_true")
    parser.add_argument("--timeout", type=float, default=LIMIT_S, metavar="SECONDS")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_intermixed_args()
    try:
        request = Request(
            config=given.config,
            overrides=tuple(given.overrides),
            only=tuple(given.only),
            skip=tuple(given.skip),
            start=given.start,
            limit_s=given.timeout,
        )
    except ValueError as error:
        parser.error(str(error))
    try:
        return run(request, as_json=given.json)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
