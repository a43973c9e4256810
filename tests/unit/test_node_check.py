"""A node that differs from the driver is refused in a line of its own, with the file and the remedy."""

from __future__ import annotations

import shutil
import sys
import types
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import pytest

from rlstack.config.model_digests import FileDigest, digests_of_model
from rlstack.errors import ConfigError
from rlstack.orchestration import node_check, node_files
from rlstack.orchestration.node_check import Report, check_nodes
from rlstack.orchestration.node_files import differences, digests_of_sources, files_of_user
from rlstack.orchestration.placement import Node
from tests.model_folders import SEED, edit

NODES = [Node("a", "10.0.0.1", 8, 64), Node("b", "10.0.0.2", 8, 64)]
MODELS = {"policy.model": Path("/models/8b"), "reward.models[0].path": Path("/models/rm")}
FILES = {"model.safetensors": FileDigest(4096, "w1"), "tokenizer.json": FileDigest(10, "t1")}
GOOD = Report(
    versions={"python": "3.11.9", "ray": "2.60.0"},
    models=dict.fromkeys(MODELS, FILES),
    package="/env/rlstack",
    sources={"rlstack/train.py": FileDigest(5, "s1"), "rlstack/files.py": FileDigest(6, "s2")},
    user_code={"/own/my_losses.py": FileDigest(7, "u1")},
    sees_run=True,
)


def check(*answers: Report | str, monkeypatch: pytest.MonkeyPatch, run: Path, driver: Report = GOOD) -> None:
    """Check nodes that give these answers."""
    nodes = [Node(str(i), f"10.0.0.{i + 1}", 8, 64) for i in range(len(answers))]
    found = dict(zip((node.address for node in nodes), answers, strict=True))
    monkeypatch.setattr(node_check, "_reports", lambda *arguments: (driver, found))
    check_nodes(nodes, models=MODELS, run=run, timeout_s=1.0)
    assert list(run.iterdir()) == []


def with_files(setting: str, **files: FileDigest | None) -> Report:
    """A good report but for these files of a model, names without their endings."""
    names = {"model": "model.safetensors", "tokenizer": "tokenizer.json", "template": "chat_template.jinja"}
    changed = FILES | {names[name]: digest for name, digest in files.items()}
    kept = {name: digest for name, digest in changed.items() if digest is not None}
    return GOOD._replace(models={**GOOD.models, setting: kept})


def test_nodes_like_the_driver_are_accepted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    check(GOOD, GOOD, monkeypatch=monkeypatch, run=tmp_path)


OF_MODEL = "node 10.0.0.2: policy.model = /models/8b: the node's files differ from the driver's: "
SHARED = "; put it on storage that all nodes share, or copy the driver's to the same path on each"


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (GOOD._replace(versions={**GOOD.versions, "ray": "2.59.0"}), "ray is 2.59.0, and 2.60.0 for"),
        (GOOD._replace(versions={"python": "3.11.9"}), "node 10.0.0.2: ray is not there, and 2.60.0"),
        (GOOD._replace(versions={**GOOD.versions, "vllm": "1"}), "vllm is 1, and not there for the driver"),
        (
            GOOD._replace(models={**GOOD.models, "policy.model": {}}),
            f"node 10.0.0.2: policy.model = /models/8b: is not there{SHARED}",
        ),
        (
            with_files("policy.model", model=FileDigest(4096, "w2")),
            f"{OF_MODEL}model.safetensors (other content){SHARED}",
        ),
        (
            with_files("policy.model", model=FileDigest(2048, "w2"), tokenizer=None),
            f"{OF_MODEL}model.safetensors (2,048 bytes there, 4,096 here), tokenizer.json (not there)",
        ),
        (
            with_files("policy.model", template=FileDigest(1, "c")),
            f"{OF_MODEL}chat_template.jinja (which the driver does not have){SHARED}",
        ),
        (
            with_files("policy.model", model=FileDigest(0, "", "is a pipe where a file belongs")),
            f"{OF_MODEL}model.safetensors (is a pipe where a file belongs, on the node){SHARED}",
        ),
        (
            with_files("reward.models[0].path", model=FileDigest(4096, "w2")),
            "node 10.0.0.2: reward.models[0].path = /models/rm: the node's files differ",
        ),
        (
            GOOD._replace(
                package="/clone/rlstack",
                sources={**GOOD.sources, "rlstack/train.py": FileDigest(5, "other")},
            ),
            "node 10.0.0.2: rlstack in /clone/rlstack is of another source than the driver's in "
            "/env/rlstack: rlstack/train.py (other content); install the same commit on all nodes",
        ),
        (
            GOOD._replace(user_code={"/own/my_losses.py": FileDigest(7, "u2")}),
            "objective.loss: the node's files differ from the driver's: /own/my_losses.py (other content)",
        ),
        (GOOD._replace(sees_run=False), "node 10.0.0.2: run.dir: "),
        ("ModuleNotFoundError: no rlstack", "10.0.0.2: rlstack cannot be run there (Mod"),
    ],
)  # fmt: skip
def test_one_line_says_what_is_wrong_where(
    answer: Report | str, says: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as error:
        check(GOOD, answer, monkeypatch=monkeypatch, run=tmp_path)
    assert says in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_a_module_that_is_elsewhere_on_a_node_is_no_difference(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    check(GOOD, GOOD._replace(user_code={}), monkeypatch=monkeypatch, run=tmp_path)


def test_a_driver_that_differs_from_many_nodes_gets_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    driver = GOOD._replace(versions={**GOOD.versions, "ray": "2.59.0"})
    with pytest.raises(ConfigError) as error:
        check(*[GOOD] * 64, monkeypatch=monkeypatch, run=tmp_path, driver=driver)
    (line,) = str(error.value).splitlines()
    assert line.startswith("nodes 10.0.0.1, 10.0.0.2, 10.0.0.3 and 61 more: ray is 2.60.0, and 2.59.0 for")


def test_one_node_of_64_with_another_file_is_named_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    answers = [GOOD] * 64
    answers[40] = with_files("policy.model", model=FileDigest(4096, "w2"))
    with pytest.raises(ConfigError) as error:
        check(*answers, monkeypatch=monkeypatch, run=tmp_path)
    (line,) = str(error.value).splitlines()
    assert line.startswith("node 10.0.0.41: policy.model = ") and "model.safetensors (other content)" in line


def test_the_driver_reads_its_own_files_once_whatever_the_number_of_nodes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taken: list[Report] = []

    class Task:
        def options(self, **others: object) -> Task:
            return self

        def remote(self, take: object) -> object:
            return object()

    def take() -> Report:
        taken.append(GOOD)
        return GOOD

    monkeypatch.setattr(node_check.ray, "remote", lambda **options: lambda function: Task())
    monkeypatch.setattr(node_check.ray, "wait", lambda calls, **limits: (calls, []))
    monkeypatch.setattr(node_check.ray, "get", lambda call, **limits: GOOD)
    nodes = [Node(f"{i:056x}", f"10.0.0.{i}", 8, 64) for i in range(64)]
    own, found = node_check._reports(nodes, take, 1.0)
    assert own is GOOD and len(found) == 64 and len(taken) == 1


def test_the_first_files_of_many_are_named() -> None:
    here = {f"{number:02}.safetensors": FileDigest(8, "a") for number in range(30)}
    there = {**here, **{f"{number:02}.safetensors": FileDigest(8, "b") for number in range(10, 20)}}
    assert differences(there, here) == (
        "10.safetensors (other content), 11.safetensors (other content), 12.safetensors (other content) "
        "and 7 more"
    )
    assert differences(here, here) == ""


def report_of(models: Mapping[str, Path], marker: Path | None) -> Report:
    return node_check.report(models, [], marker)


def test_a_report_has_the_files_of_a_model_and_the_run_that_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "marker").touch()
    models = {"policy.model": SEED, "other": tmp_path / "missing"}
    there, nowhere = (report_of(models, tmp_path / name) for name in ("marker", "missing"))
    assert (there.sees_run, nowhere.sees_run) == (True, False)
    assert report_of(models, None).sees_run  # nobody has to write anything
    assert there.models == {"policy.model": digests_of_model(SEED), "other": {}}
    assert there.versions["python"]
    assert there.sources["rlstack/orchestration/node_check.py"].num_bytes > 0
    assert there.sources["rlstack_kernels/__init__.py"] is not None


def test_the_reports_of_two_folders_lead_to_a_refusal_by_node_and_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stale = tmp_path / "stale"
    shutil.copytree(SEED, stale)
    edit(stale / "generation_config.json", eos_token_id=[3])
    reports = [report_of({"policy.model": folder}, None) for folder in (SEED, stale)]
    monkeypatch.setattr(node_check, "_reports", lambda *arguments: (reports[0], {"10.0.0.2": reports[1]}))
    with pytest.raises(ConfigError, match=r"node 10\.0\.0\.2: .*differ.* generation_config\.json \("):
        check_nodes(NODES, models={"policy.model": SEED}, run=None, timeout_s=1.0)


def test_a_changed_line_of_one_module_makes_another_source(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    own = digests_of_sources()
    copy = tmp_path / "rlstack"
    shutil.copytree(Path(node_files.__file__).parents[1], copy, ignore=shutil.ignore_patterns("__pycache__"))
    kernels = node_files.package_folder("rlstack_kernels")
    folders = {"rlstack": copy, "rlstack_kernels": kernels}
    monkeypatch.setattr(node_files, "package_folder", folders.get)
    (copy / ".#train.py").symlink_to("me@host.1234")  # as Emacs locks a file
    (copy / ".ipynb_checkpoints").mkdir()
    (copy / ".ipynb_checkpoints" / "train-checkpoint.py").write_text("")
    assert differences(digests_of_sources(), own) == ""
    engine = copy / "rollout" / "engine.py"
    engine.write_text(engine.read_text().replace("temperature=temperature,", "temperature=temperature * 1,"))
    (copy / "policy" / "trainer.py").unlink()
    assert differences(digests_of_sources(), own).startswith(
        "rlstack/policy/trainer.py (not there), rlstack/rollout/engine.py ("
    )


def test_a_loss_of_the_users_own_brings_the_modules_of_its_package(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    package = tmp_path / "my_losses"
    package.mkdir()
    (package / "__init__.py").write_text("from my_losses.formula import Ipo")
    (package / "formula.py").write_text("class Ipo: pass")
    (package / "not_imported.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    import my_losses  # type: ignore[import-not-found]

    try:
        assert files_of_user(my_losses.Ipo()) == [package / "__init__.py", package / "formula.py"]
    finally:
        for name in ("my_losses", "my_losses.formula"):
            sys.modules.pop(name)


def test_what_travels_by_value_or_is_installed_has_no_files() -> None:
    loss = types.SimpleNamespace()
    assert files_of_user(loss) == []  # of Python's own types
    assert files_of_user(partial(print)) == []
    assert files_of_user(pytest.fail) == []
