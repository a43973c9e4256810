"""Find out whether a logger could begin: `python -P -m rlstack.telemetry.loggers.login NAME TARGET`.

Its last line on standard output is a JSON object: {"problem": str | null}. Nothing is written anywhere.
"""

from __future__ import annotations

import json
import os
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from rlstack.user_code import in_one_line

SQLITE = "sqlite:///"


def main(name: str, target: str) -> None:
    """Print what keeps the logger `name` from `target`, which is what its setting says."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # the packages may print
    problem = None
    try:
        TRY[name](target)
    except BaseException as error:
        problem = in_one_line(error).rstrip(".")
    print(json.dumps({"problem": problem}), file=answers, flush=True)
    os._exit(0)  # whatever threads and processes the package has started


def _tensorboard(target: str) -> None:
    import rlstack.telemetry.loggers.to_tensorboard  # noqa: F401


def _wandb(target: str) -> None:
    from rlstack.telemetry.loggers import to_wandb

    to_wandb.log_in()


def _mlflow(target: str) -> None:
    if target.startswith(SQLITE):  # which MLflow would make, with all of its tables
        _sqlite(Path(target.removeprefix(SQLITE)))
        return
    from rlstack.telemetry.loggers import to_mlflow

    to_mlflow.reach(target)


def _sqlite(file: Path) -> None:
    if file.is_file():
        with closing(sqlite3.connect(file.absolute().as_uri() + "?mode=ro", uri=True)) as database:
            database.execute("PRAGMA schema_version").fetchone()
    elif not os.access(file.absolute().parent, os.W_OK):
        raise OSError(f"{file.absolute().parent} is no folder to write to")


TRY: dict[str, Callable[[str], None]] = {"tensorboard": _tensorboard, "wandb": _wandb, "mlflow": _mlflow}

if __name__ == "__main__":
    main(*sys.argv[1:])
