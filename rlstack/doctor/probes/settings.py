"""What `rlstack train` would say of CONFIG, asked in a process of its own: OmegaConf may be missing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlstack.child_process import last_json, last_line, run
from rlstack.doctor.facts import Settings


def look(config: Path, overrides: Sequence[str], *, whole: bool, joins: bool, limit_s: float) -> Settings:
    """What another process says of CONFIG within `limit_s`, which imports what this one cannot count on.

    whole: everything that `rlstack train` would refuse; otherwise what is quick to find, and the sizes.
    joins: whether the cluster that it names is joined too.
    """
    path = str(config)
    how = ([] if whole else ["--sizes-only"]) + ([] if joins else ["--without-cluster"])
    done = run(["-m", "rlstack.doctor.read_settings", *how, path, *overrides], limit_s=limit_s)
    if done is None:
        return Settings(path=path, error=f"it could not be read within {limit_s:g} s")
    answer: Any = last_json(done.stdout)
    if done.returncode or answer is None:
        return Settings(path=path, error=last_line(done.stderr) or f"exit status {done.returncode}")
    for name in ("refused", "model_refused"):
        answer[name] = tuple(answer.get(name, ()))
    if answer.get("ports") is not None:
        answer["ports"] = tuple(answer["ports"])
    return Settings(path=path, **answer)
