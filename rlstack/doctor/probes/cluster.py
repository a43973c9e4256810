"""The cluster that a configuration names, joined by a process of its own: Ray prints, and waits for long."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlstack.child_process import last_json, last_line, run
from rlstack.doctor.facts import Cluster, ClusterNode, Settings


def look(config: Path, overrides: Sequence[str], settings: Settings, *, limit_s: float) -> Cluster | None:
    """Return what another process finds within `limit_s`; None for settings that cannot be read or join none.

    Of settings that are refused only the joining is tried.
    """
    if settings.error is not None or not settings.joins_cluster:
        return None
    how = ["--join-only"] if settings.refused or settings.model_refused else []
    done = run(["-m", "rlstack.doctor.try_cluster", *how, str(config), *overrides], limit_s=limit_s)
    if done is None:
        return Cluster(error=f"it was not joined and looked at within {limit_s:g} s")
    answer: Any = last_json(done.stdout)
    if done.returncode or answer is None:
        return Cluster(error=last_line(done.stderr) or f"exit status {done.returncode}")
    return Cluster(
        join_problem=answer.get("join_problem"),
        nodes=tuple(ClusterNode(**node) for node in answer.get("nodes", ())),
        place_problem=answer.get("place_problem"),
        places=tuple((address, tuple(roles)) for address, roles in answer.get("places", ())),
        is_free=answer.get("is_free", True),
        node_problems=tuple(answer.get("node_problems", ())),
    )
