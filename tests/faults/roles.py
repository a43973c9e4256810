"""The roles of a run under watch: what goes in the place of the product's own builders."""

from __future__ import annotations

from typing import Any

from rlstack.checkpoint.store import CheckpointStore
from rlstack.orchestration import engine_group, policy_group
from tests.faults.faults import Role
from tests.faults.strike import Watched, note_calls, watch

_build_policy_worker = policy_group.build_policy_worker
_build_engine = engine_group.build_engine


def build_policy_worker(**kwargs: Any) -> Any:
    from torch.distributed.checkpoint import FileSystemWriter

    striker = watch(Role(f"policy rank {kwargs['rank']}"))
    note_calls(FileSystemWriter, "write_data", striker)
    return Watched(_build_policy_worker(**kwargs), striker)


def build_engine(**kwargs: Any) -> Any:
    striker = watch(Role(f"engine {kwargs['index']}"))
    return Watched(_build_engine(**kwargs), striker)


def watch_driver() -> None:
    """Watch this process, the driver, and have the roles that it starts built by the functions above."""
    striker = watch(Role.driver)
    note_calls(CheckpointStore, "commit", striker)
    policy_group.build_policy_worker = build_policy_worker
    engine_group.build_engine = build_engine
