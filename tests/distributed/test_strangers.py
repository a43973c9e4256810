"""Who joins the ranks without the run's secret has them run nothing, and who joins with it is understood."""

from __future__ import annotations

import json
from pathlib import Path

import psutil
import pytest

from rlstack.config.schema import RunConfig
from rlstack.orchestration.loopback import LOOPBACK
from rlstack.policy.worker import PolicyWorker
from rlstack.rendezvous import serve_store
from tests.distributed.stranger_job import COLLECTIVES
from tests.ranks import run_ranks

PROGRAM = Path(__file__).with_name("stranger_job.py")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def groups(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders in which rank 0 of two groups has left what became of its collectives, by its peer's kind."""
    folders = {kind: tmp_path_factory.mktemp(kind) for kind in ("rank", "stranger")}
    stores = {kind: serve_store("127.0.0.1", timeout_s=60.0) for kind in folders}
    run_ranks(
        [
            [PROGRAM, folder, stores[kind].port, rank, kind if rank else "rank"]
            for kind, folder in folders.items()
            for rank in (0, 1)
        ],
        timeout_s=120,
    )
    return folders


def test_on_one_machine_the_ranks_meet_where_no_other_user_can() -> None:
    worker = PolicyWorker(RunConfig(), rank=0, world_size=2)
    before = psutil.Process().net_connections("inet")
    host, where = worker.serve(LOOPBACK)
    assert host == LOOPBACK and isinstance(where, Path)
    assert where.parent.stat().st_mode & 0o077 == 0
    assert psutil.Process().net_connections("inet") == before
    where.parent.rmdir()


def test_ranks_understand_each_other(groups: dict[str, Path]) -> None:
    found = json.loads((groups["rank"] / "0.json").read_text())
    assert found == {name: ["from rank 1"] for name in COLLECTIVES}


def test_what_a_stranger_sends_is_not_unpickled(groups: dict[str, Path]) -> None:
    found = json.loads((groups["stranger"] / "0.json").read_text())
    assert found.keys() == COLLECTIVES.keys()
    for name, text in found.items():
        assert text.startswith("refused: ") and "another process has joined the ranks" in text, name
    assert [path.name for path in groups["stranger"].iterdir()] == ["0.json"]
