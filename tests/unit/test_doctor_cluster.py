"""The doctor joins the cluster that a configuration names, says what it finds there, and leaves nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.nodes import ENVIRONMENT, ray_nodes

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-c", "from rlstack.cli import main; main()", "doctor", "--json"]
HEAD, OTHER = "127.0.0.6", "127.0.0.7"

pytestmark = pytest.mark.slow

Found = list[tuple[str, str, str]]  # name, level and text of the findings on the cluster


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    with ray_nodes([HEAD, OTHER], num_cpus=2) as address:
        yield address


def doctor(address: str, folder: Path, *settings: str, **variables: str) -> Found:
    given = [f"cluster.address={address}", f"run.dir={folder}", *settings]
    done = subprocess.run(
        [*COMMAND, "configs/quickstart.yaml", *given, "--only", "ray", "--only", "settings"],
        cwd=ROOT,
        env=os.environ | ENVIRONMENT | variables,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.stdout, done.stderr
    findings = json.loads(done.stdout)["findings"]
    assert all(each["remedy"] for each in findings if each["level"] == "problem")
    about = [each for each in findings if each["name"].startswith(("cluster", "settings"))]
    return [(each["name"], each["level"], each["found"]) for each in about]


def test_a_cluster_is_joined_its_nodes_are_listed_and_checked_and_nothing_stays(
    cluster: str, tmp_path: Path
) -> None:
    resources = "2 of 2 cores and 0 of 0 GPUs free"
    assert doctor(cluster, tmp_path) == [
        ("cluster-join", "ok", "joined and left again; it has 2 nodes"),
        ("cluster-nodes", "ok", f"{HEAD}: {resources}"),
        ("cluster-nodes", "ok", f"{OTHER}: {resources}"),
        ("cluster-places", "ok", f"{HEAD}: policy-0, policy-1"),
        ("cluster-places", "ok", f"{OTHER}: engine-0"),
        ("cluster-check", "ok", "2 nodes: nothing that a run would refuse"),
        (
            "settings",
            "ok",
            "configs/quickstart.yaml: nothing that `rlstack train` would refuse",
        ),
    ]
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_does_not_fit_is_refused_as_a_run_is(cluster: str, tmp_path: Path) -> None:
    found = doctor(cluster, tmp_path, "rollout.engines=200")
    (text,) = [text for name, level, text in found if (name, level) == ("cluster-places", "problem")]
    assert "room for 202 processes is needed, and there is room for 16 (2 x 8)" in text
    assert "cluster-check" not in {name for name, _, _ in found}


def test_a_wrong_token_and_a_node_that_is_down_are_told_apart(cluster: str, tmp_path: Path) -> None:
    ((name, level, text), *others) = doctor(cluster, tmp_path, RAY_AUTH_TOKEN="0" * 64)
    assert (name, level) == ("cluster-join", "problem") and "has another token than RAY_AUTH_TOKEN" in text
    assert [name for name, _, _ in others] == ["settings"]
    ((name, level, text), *_) = doctor("127.0.0.8:9", tmp_path)
    assert (name, level) == ("cluster-join", "problem") and "nothing answers at 127.0.0.8:9" in text
