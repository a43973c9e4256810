import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

import rlstack.train
from rlstack.cli import app
from rlstack.config.own_code import OwnCode
from rlstack.config.schema import RunConfig
from tests.heavy import HEAVY, run_without

ROOT = Path(__file__).parents[2]


def test_help_imports_nothing_heavy() -> None:
    commands = (
        "train",
        "doctor",
        "tune",
        "compare",
        "evaluate",
        "score",
        "judge",
        "export",
        "report",
        "plan",
        "plan-transfer",
    )
    light = (*HEAVY, "omegaconf", "numpy", "plotly")
    done = run_without(light, *(([command, "--help"], 0) for command in commands))
    assert "rlstack train configs/quickstart.yaml" in done.stdout


@pytest.mark.parametrize(
    ("command", "setting", "shown"),
    [
        ("train", "policy.pipeline_parallel=3", "does not divide the model's 4 layers"),
        ("evaluate", "evaluation.n=0", "at least 1"),
    ],
)
def test_settings_are_refused_before_anything_heavy_is_imported(
    command: str, setting: str, shown: str, quickstart: Path
) -> None:
    done = run_without(HEAVY, ([command, str(quickstart), setting], 2))
    assert f"{setting.replace('=', ' = ')}: {shown}" in done.stderr


@pytest.fixture
def quickstart(tmp_path: Path) -> Path:
    """The quickstart with a model and data files of its own."""
    shutil.copytree(ROOT / "configs" / "tiny" / "seed", tmp_path / "model")
    (tmp_path / "train.jsonl").write_text('{"problem": "1 + 1", "answer": "2"}\n')
    path = tmp_path / "run.yaml"
    path.write_text(
        f"base: {ROOT / 'configs' / 'quickstart.yaml'}\n"
        "policy: {model: model}\n"
        "data: {tasks: [{name: a, path: train.jsonl}]}\n"
        "evaluation: {tasks: [{name: b, path: train.jsonl}]}\n"
    )
    return path


def test_a_model_without_weights_is_refused_before_anything_heavy_is_imported(quickstart: Path) -> None:
    (quickstart.parent / "model" / "model.safetensors").unlink()
    done = run_without(HEAVY, (["train", str(quickstart)], 2))
    assert "has no *.safetensors with weights" in done.stderr


@pytest.mark.parametrize(
    ("error", "status", "shown"),
    [
        (None, 0, ""),
        (KeyboardInterrupt(), 130, "interrupted"),
        (RuntimeError("a rank died"), 1, "a rank died"),
    ],
)
def test_exit_status(
    quickstart: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException | None,
    status: int,
    shown: str,
) -> None:
    def train(config: RunConfig, *, resume: bool, own: OwnCode, prompts: object) -> None:
        assert not resume
        assert config.schedule.num_steps == 7
        if error is not None:
            raise error

    monkeypatch.setattr(rlstack.train, "train", train)
    done = CliRunner().invoke(app, ["train", str(quickstart), "schedule.num_steps=7"])
    assert done.exit_code == status
    assert shown in done.output


def test_a_run_is_resumed_unless_it_has_taken_all_its_steps(
    quickstart: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    resumed = []
    monkeypatch.setattr(rlstack.train, "train", lambda config, *, resume, **given: resumed.append(resume))
    command = ["train", str(quickstart), "--resume", f"run.dir={tmp_path}", "run.name=run"]
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "summary.json").write_text('{"status": "completed", "steps": 7}')
    done = CliRunner().invoke(app, [*command, "schedule.num_steps=7"])
    assert (done.exit_code, resumed) == (0, [])
    assert "run: has completed its 7 steps; nothing is left to do" in done.output
    done = CliRunner().invoke(app, [*command, "schedule.num_steps=8"])
    assert (done.exit_code, resumed) == (0, [True])


def test_an_error_with_a_log_is_one_line_and_the_path(
    quickstart: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = RuntimeError("a rank died\nwith details")
    error.add_note("the traceback is in runs/x/logs/error.log")

    def train(config: RunConfig, *, resume: bool, own: OwnCode, prompts: object) -> None:
        raise error

    monkeypatch.setattr(rlstack.train, "train", train)
    done = CliRunner().invoke(app, ["train", str(quickstart)])
    assert done.output.splitlines() == [
        "error: RuntimeError: a rank died",
        "the traceback is in runs/x/logs/error.log",
    ]


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["train"], "CONFIG"),
        (["train", "nowhere.yaml"], "error: nowhere.yaml: there is no such file"),
        (["tain"], "train"),
        (["train", str(ROOT / "configs" / "quickstart.yaml"), "rollout.tempreature=3"], "did you mean"),
    ],
)
def test_usage_and_configuration_errors_end_with_2(arguments: list[str], shown: str) -> None:
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2
    assert shown in done.output
    assert "Traceback" not in done.output
