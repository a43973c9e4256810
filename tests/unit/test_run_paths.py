"""Settings that lead out of the run's folder, and folders that do, are refused by name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from rlstack.cli import app
from rlstack.config.schema import RunConfig
from rlstack.config.validate import problems
from rlstack.errors import ConfigError
from rlstack.files import written_at_once
from rlstack.telemetry.curves import read_settings
from rlstack.telemetry.run_dir import RunDirectory
from rlstack.telemetry.run_links import refuse_links
from rlstack.tuning.interval.workspace import Workspace


def problems_of(key: str, name: str) -> list[str]:
    config = RunConfig()
    setattr(config.run, key, name)
    anything: Any = None  # neither the model nor the machine is looked at: there are no tasks
    found = problems(config, architecture=anything, machine=anything)
    return [problem for problem in found if problem.startswith(f"run.{key} = ")]


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../a", "/etc", "a/b", "a/", "a\0b", "a\nb", "\x1b[2J", "\u202etxt", "\ud800", "x" * 201],
)
def test_a_name_that_is_not_a_folder_s_is_refused(name: str) -> None:
    (problem,) = problems_of("name", name)
    assert problem.isprintable() and len(problem) < 300


@pytest.mark.parametrize("name", ["run", "a b", "..a", "-", "s=10", "läufe", "x" * 200])
def test_any_other_name_is_accepted(name: str) -> None:
    assert problems_of("name", name) == []


@pytest.mark.parametrize("folder", ["a\0b", "a\nb"])
def test_control_characters_in_the_folder_above_are_refused(folder: str) -> None:
    assert problems_of("dir", folder)


def config_in(folder: Path) -> RunConfig:
    config = RunConfig()
    config.run.dir, config.run.name = str(folder / "runs"), "mine"
    return config


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o750), (0o027, 0o750), (0o002, 0o770), (0o077, 0o700)])
def test_a_run_is_for_its_user_and_the_group_if_the_umask_lets_it(
    tmp_path: Path, mask: int, mode: int
) -> None:
    before = os.umask(mask)
    try:
        RunDirectory.create(config_in(tmp_path)).close()
    finally:
        os.umask(before)
    assert (tmp_path / "runs" / "mine").stat().st_mode & 0o7777 == mode


@pytest.mark.parametrize("begin", [RunDirectory.create, RunDirectory.resume])
def test_a_run_folder_that_is_a_link_is_refused_and_left_alone(tmp_path: Path, begin) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "metrics.jsonl").write_text("another one's")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "mine").symlink_to(elsewhere)
    with pytest.raises(ConfigError, match=r"mine is a link to .*elsewhere"):
        begin(config_in(tmp_path))
    assert (elsewhere / "metrics.jsonl").read_text() == "another one's"
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["mine"]


@pytest.mark.parametrize("name", ["checkpoints", "logs", "metrics.jsonl", "checkpoints/step-00000004"])
@pytest.mark.parametrize("target", ["elsewhere", "nowhere"])
def test_what_leads_out_of_the_folder_is_refused_on_resume(tmp_path: Path, name: str, target: str) -> None:
    config = config_in(tmp_path)
    RunDirectory.create(config).close()
    (tmp_path / "elsewhere").mkdir()
    path = tmp_path / "runs" / "mine" / name
    path.parent.mkdir(exist_ok=True)
    if path.exists():
        path.rename(path.with_name("away"))
    path.symlink_to(tmp_path / target)
    with pytest.raises(ConfigError, match=f"{name} is a link to .*{target}"):
        RunDirectory.resume(config)


def test_a_folder_above_that_is_a_link_is_the_user_s_own_choice(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "runs").symlink_to(tmp_path / "disk")
    RunDirectory.create(config_in(tmp_path)).close()
    assert (tmp_path / "disk" / "mine" / "metrics.jsonl").is_file()


@pytest.mark.parametrize("command", ["report", "compare"])
@pytest.mark.parametrize("name", ["metrics.jsonl", "rollouts.jsonl", "config.yaml"])
def test_a_run_is_not_read_through_links_and_pipes(tmp_path: Path, command: str, name: str) -> None:
    config = config_in(tmp_path)
    RunDirectory.create(config).close()
    path = tmp_path / "runs" / "mine" / name
    path.rename(tmp_path / name)
    path.symlink_to(tmp_path / name)
    done = CliRunner().invoke(app, [command, str(path.parent)])
    assert done.exit_code == 2 and f"{path} is a link to {tmp_path / name}" in done.output
    path.unlink()
    os.mkfifo(path)
    done = CliRunner().invoke(app, [command, str(path.parent)])
    assert done.exit_code == 2 and f"{path} is neither a file nor a folder" in done.output


def test_settings_with_aliases_are_no_runs(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("run: {name: &a [b, b], dir: [*a, *a]}")
    with pytest.raises(ConfigError, match="is not the settings of a run"):
        read_settings(tmp_path)


def test_a_run_is_resumed_without_looking_up_what_its_settings_refer_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_in(tmp_path)
    RunDirectory.create(config).close()
    monkeypatch.setenv("WHATEVER", "a")
    path = tmp_path / "runs" / "mine" / "config.yaml"
    path.write_text(path.read_text().replace("name: mine", "name: ${oc.env:WHATEVER}"))
    with pytest.raises(ConfigError, match=r"config.yaml: has `base` or a reference"):
        RunDirectory.resume(config)


def test_a_draft_is_not_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("untouched")
    (tmp_path / ".report.html.part").symlink_to(tmp_path / "mine")
    with written_at_once(tmp_path / "report.html") as file:
        file.write("new")
    assert (tmp_path / "mine").read_text() == "untouched"
    assert (tmp_path / "report.html").read_text() == "new"


def test_a_tuning_does_not_write_through_links(tmp_path: Path) -> None:
    (tmp_path / "tune" / "trials").mkdir(parents=True)
    (tmp_path / "tune" / "trials" / "a.log").symlink_to(tmp_path / "mine")
    with pytest.raises(ConfigError, match=r"a\.log is a link to"):
        Workspace(tmp_path / "tune", RunConfig())


def test_a_folder_that_is_not_there_has_no_links(tmp_path: Path) -> None:
    refuse_links(tmp_path / "none", below=("checkpoints",))
