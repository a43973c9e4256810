"""What `rlstack evaluate` makes of its arguments, and what it refuses before anything heavy starts."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rlstack.cli import app
from rlstack.config.load import dump_config, load_config
from rlstack.config.schema import RunConfig
from rlstack.errors import ConfigError
from rlstack.evaluation.identity import differences, hold_to
from rlstack.evaluation.settings import evaluation_config, find_target, parse_task

ROOT = Path(__file__).parents[2]
SEED = ROOT / "configs" / "tiny" / "seed"
QUICKSTART = ROOT / "configs" / "quickstart.yaml"
OURS = {"evaluation.n": 50, "evaluation.top_p": None, "rollout.max_new_tokens": None}


def write_settings(folder: Path, *overrides: str) -> None:
    """As the quickstart's run with `overrides` would leave them."""
    (folder / "config.yaml").write_text(dump_config(load_config(QUICKSTART, overrides)))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a run that has ended."""
    folder = tmp_path / "runs" / "quick"
    (folder / "model").mkdir(parents=True)
    shutil.copy(SEED / "config.json", folder / "model")
    write_settings(folder, "evaluation.top_p=0.7")
    (folder / "summary.json").write_text('{"steps": 120}')
    return folder


def test_a_run_is_its_model_with_its_own_tasks_and_settings(run: Path) -> None:
    target = find_target(run)
    config = evaluation_config(target, tasks=(), settings=OURS, overrides=())
    assert (target.name, target.version, target.out) == ("quick", 120, run / "evaluation")
    assert config.policy.model == str(run / "model")
    assert [task.name for task in config.evaluation.tasks] == ["fractions"]
    assert config.data.tasks == []  # nothing is trained: no reward of theirs need start
    assert (config.evaluation.n, config.evaluation.top_p) == (50, 0.7)
    assert config.evaluation.num_prompts is None  # the run's 150 are for speed while training
    assert config.rollout.max_new_tokens == 56


def test_a_runs_model_folder_and_a_plain_model_have_the_defaults(run: Path) -> None:
    assert find_target(run / "model").name == "quick"
    target = find_target(SEED)
    task = f"sums={QUICKSTART},template=chat"
    config = evaluation_config(target, tasks=[task], settings=OURS, overrides=["rollout.engines=2"])
    assert (target.name, target.version, target.out) == ("seed", None, Path("runs/seed-evaluation"))
    assert (config.evaluation.top_p, config.rollout.engines) == (0.9, 2)
    assert (config.evaluation.tasks[0].name, config.evaluation.tasks[0].template.value) == ("sums", "chat")


def test_a_settings_file_is_its_model(tmp_path: Path) -> None:
    config = evaluation_config(find_target(QUICKSTART), tasks=(), settings=OURS, overrides=["run.seed=3"])
    assert (config.policy.model, config.run.seed) == (str(SEED), 3)


def test_a_task_is_a_name_a_path_and_settings() -> None:
    assert parse_task("a=x,y=1.jsonl") == {"name": "a", "path": "x", "y": "1.jsonl"}
    assert parse_task("a=x,z.jsonl,reward=m:f") == {"name": "a", "path": "x,z.jsonl", "reward": "m:f"}


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["nowhere"], "nowhere: is nothing to evaluate"),
        ([str(SEED)], "has no evaluation.tasks; give --task NAME=PATH"),
        ([str(SEED), "--task", "a"], "--task a: NAME=PATH is accepted"),
        ([str(SEED), "--task", "a=nowhere.jsonl"], "nowhere.jsonl: there is no such"),
        ([str(SEED), "--task", f"a={QUICKSTART},templat=chat"], "did you mean evaluation.tasks[0].template"),
        ([str(QUICKSTART), "--n", "0"], "evaluation.n = 0: at least 1"),
        ([str(QUICKSTART), "--temperature", "0"], "evaluation.n = 50: 1 is accepted"),
        ([str(QUICKSTART), "rollout.engines=100"], "rollout.engines x tensor_parallel = 100 ranks"),
        ([str(SEED), "--arena-hard", str(QUICKSTART)], "is neither a JSON list nor JSONL"),
        ([str(QUICKSTART), "--name", "a/b"], "--name a/b"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(arguments: list[str], shown: str) -> None:
    done = CliRunner().invoke(app, ["evaluate", *arguments])
    assert done.exit_code == 2
    assert shown in done.output.replace("\n", " ")


def made(target: Path, *overrides: str, tasks: Sequence[str] = (), trusted: bool = False) -> RunConfig:
    found = find_target(target, trust_settings=trusted)
    return evaluation_config(found, tasks=tasks, settings=OURS, overrides=overrides)


SPY = "from pathlib import Path\nPath('imported').touch()\nraise ImportError\n"


def test_a_models_folder_that_looks_like_a_run_chooses_nothing(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(SEED, run, dirs_exist_ok=True)
    shutil.copytree(SEED, run / "model", dirs_exist_ok=True)
    write_settings(run, "evaluation.tasks[0].reward=spy:judge", "cluster.address=evil:6379")
    (tmp_path / "spy.py").write_text(SPY)
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["evaluate", str(run)])
    assert done.exit_code == 2 and not Path("imported").exists()
    assert f"{run}: taken for a model's folder; no settings are read from it" in done.output
    assert "has no evaluation.tasks; give --task NAME=PATH" in done.output


@pytest.mark.parametrize(
    ("setting", "shown"),
    [
        ("evaluation.tasks[0].reward=spy:judge", "evaluation.tasks[0].reward = spy:judge: math is accepted"),
        ("evaluation.tasks[0].reward=judge", "evaluation.tasks[0].reward = judge: math is accepted"),
        (
            "evaluation.tasks[0].path=/proc/self/environ",
            "evaluation.tasks[0].path = /proc/self/environ: a file",
        ),
        ("cluster.address=evil:6379", "cluster.address = evil:6379: no address"),
        (
            "cluster.env.NCCL_DEBUG=INFO",
            "cluster.env = {'NCCL_DEBUG': 'INFO'}: no address and no environment",
        ),
    ],
)
def test_what_a_run_of_anybodys_may_not_choose_is_repeated_or_trusted(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str, shown: str
) -> None:
    shutil.copytree(SEED, run / "model", dirs_exist_ok=True)
    write_settings(run, setting)
    (tmp_path / "spy.py").write_text(SPY)
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["evaluate", str(run), "cluster.shutdown_timeout_s=9"])
    assert done.exit_code == 2 and not Path("imported").exists()
    assert f"error: {run}/config.yaml: {shown}" in done.output and "--trust-settings" in done.output
    wanted = load_config(QUICKSTART, [setting])
    repeated, trusted = made(run, setting), made(run, trusted=True)
    assert repeated.evaluation.tasks == trusted.evaluation.tasks == wanted.evaluation.tasks
    assert repeated.cluster == trusted.cluster == wanted.cluster


def test_tasks_of_the_command_line_take_the_place_of_a_runs(run: Path) -> None:
    write_settings(run, "evaluation.tasks[0].reward=spy:judge")
    config = made(run, tasks=[f"sums={QUICKSTART}"])
    assert [task.name for task in config.evaluation.tasks] == ["sums"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("base: other.yaml", "has `base` or a reference"),
        ("run: {name: '${oc.env:HOME}'}", "has `base` or a reference"),
        ('run: {name: "\\x24{oc.env:HOME}"}', "has `base` or a reference"),
        ('run: {name: "\\\\\\\\${oc.env:HOME}"}', "has `base` or a reference"),
        ("run: {name: &a b, dir: *a}", "has an alias"),
        ("[" * 10_000, "is not valid YAML"),
        ("run: 3", "run = 3: a section is accepted"),
        ("#" * 2**20 + "#", "at most 1048576 bytes"),
    ],
)
def test_settings_that_no_run_writes_are_refused_in_a_run(run: Path, text: str, shown: str) -> None:
    (run / "config.yaml").write_text(text)
    with pytest.raises(ConfigError, match=re.escape(f"{run}/config.yaml") + f".*{re.escape(shown)}"):
        made(run)


def test_nothing_of_a_run_but_its_tasks_and_its_sampling_is_taken(run: Path) -> None:
    others = ("objective.loss=spy:loss", "telemetry.mlflow=http://evil", "reward.workers=64", "run.dir=/evil")
    write_settings(run, *others, "run.seed=7", "rollout.max_new_tokens=48", "reward.timeout_s=9")
    assert "taken for a run's folder; of its settings only the tasks" in find_target(run).told
    config = made(run)
    assert (config.run.seed, config.rollout.max_new_tokens, config.reward.timeout_s) == (7, 48, 9)
    assert config.objective.loss is config.telemetry.mlflow is None
    assert (config.reward.workers, config.run.dir) == ("auto", "runs")


@pytest.mark.parametrize(
    "name", ["summary.json", "evaluation", "evaluation/logs/engine-0.log", "evaluation/a"]
)
def test_links_and_pipes_in_a_run_are_not_read_and_not_written_through(
    run: Path, tmp_path: Path, name: str
) -> None:
    shutil.copytree(SEED, run / "model", dirs_exist_ok=True)
    path = run / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.symlink_to(tmp_path / "mine")
    assert f"{path} is a link to {tmp_path}/mine" in CliRunner().invoke(app, ["evaluate", str(run)]).output
    path.unlink()
    os.mkfifo(path)
    assert f"{path} is neither a file nor a folder" in CliRunner().invoke(app, ["evaluate", str(run)]).output


def test_a_run_without_a_model_is_refused(run: Path) -> None:
    (run / "model" / "config.json").unlink()
    with pytest.raises(ConfigError, match="has not saved its model"):
        find_target(run)


def values(**changes: object) -> dict[str, object]:
    return {"n": 4, "seed": 0, "tasks": {"a": {"template": "math"}}} | changes


def test_a_folder_holds_the_answers_of_one_evaluation_and_may_get_more_tasks(tmp_path: Path) -> None:
    path = tmp_path / "settings.json"
    hold_to(path, values())
    hold_to(path, values(tasks={"b": {"template": "chat"}}))
    assert json.loads(path.read_text())["tasks"].keys() == {"a", "b"}
    with pytest.raises(ConfigError, match="holds answers with n = 4, not 8; give another --out"):
        hold_to(path, values(n=8))
    with pytest.raises(ConfigError, match="template = math, not chat"):
        hold_to(path, values(tasks={"a": {"template": "chat"}}))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"n": 4, "seed": 0, "tasks": []}', "[" * 100_000])
def test_settings_of_something_else_are_one_refusal(tmp_path: Path, text: str) -> None:
    (tmp_path / "settings.json").write_text(text)
    with pytest.raises(ConfigError, match=r"is not of an evaluation|holds answers with"):
        hold_to(tmp_path / "settings.json", values())


def test_differences_name_each_value() -> None:
    assert list(differences(values(), values())) == []
    assert list(differences(values(), values(n=5, seed=1))) == ["n = 4, not 5", "seed = 0, not 1"]
