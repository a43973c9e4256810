"""What is wrong with a node is said in a line of its own, with what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlstack.errors import ConfigError
from rlstack.orchestration import node_check
from rlstack.orchestration.node_check import MISSING, Report, check_nodes
from rlstack.orchestration.placement import Node

NODES = [Node("a", "10.0.0.1", 8, 64), Node("b", "10.0.0.2", 8, 64)]
MODELS = {"policy.model": Path("/models/8b")}


def reports(*answers: Report | str, monkeypatch: pytest.MonkeyPatch, run: Path) -> None:
    """Check two played nodes that answer so; the driver is like the first."""
    found = dict(zip((node.address for node in NODES), answers, strict=True))
    monkeypatch.setattr(node_check, "_ask", lambda *arguments: found)
    monkeypatch.setattr(node_check, "report", lambda *arguments: answers[0])
    check_nodes(NODES, models=MODELS, run=run, timeout_s=1.0)
    assert list(run.iterdir()) == []


GOOD = Report(versions={"python": "3.11.9", "ray": "2.60.0"}, models={"policy.model": "d1"}, sees_run=True)


def test_nodes_like_the_driver_are_accepted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    reports(GOOD, GOOD, monkeypatch=monkeypatch, run=tmp_path)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (GOOD._replace(versions={**GOOD.versions, "ray": "2.59.0"}), "ray is 2.59.0, and 2.60.0 for"),
        (GOOD._replace(versions={"python": "3.11.9"}), "node 10.0.0.2: ray is not there, and 2.60.0"),
        (GOOD._replace(versions={**GOOD.versions, "vllm": "1"}), "vllm is 1, and not there for the driver"),
        (GOOD._replace(models={"policy.model": MISSING}), "policy.model = /models/8b: is not on node"),
        (GOOD._replace(models={"policy.model": "d2"}), "policy.model = /models/8b: is another model on node"),
        (GOOD._replace(sees_run=False), "run.dir: node 10.0.0.2 cannot write to"),
        ("ModuleNotFoundError: no rlstack", "10.0.0.2: rlstack cannot be run there (Mod"),
    ],
)  # fmt: skip
def test_one_line_says_what_is_wrong_where(
    answer: Report | str, says: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as error:
        reports(GOOD, answer, monkeypatch=monkeypatch, run=tmp_path)
    assert says in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_a_report_tells_a_folder_that_is_there_from_one_that_is_not(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    (tmp_path / "marker").touch()
    models = {"policy.model": tmp_path / "model", "other": tmp_path}
    there, nowhere = (node_check.report(models, tmp_path / name) for name in ("marker", "missing"))
    assert (there.sees_run, nowhere.sees_run) == (True, False)
    assert node_check.report(models, None).sees_run  # nobody has to write anything
    assert there.models["policy.model"] != MISSING == there.models["other"]
    assert there.versions["python"]
