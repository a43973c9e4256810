"""Secrets of the environment in settings, which would be kept in files and sent to loggers."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from rlstack.cli import app
from rlstack.config.load import dump_config, load_config
from rlstack.config.schema import RunConfig
from rlstack.config.secrets import secret_in
from rlstack.config.validate import validate_rewards
from rlstack.errors import ConfigError

ROOT = Path(__file__).parents[2]
VARIABLES = {"HF_TOKEN": "hf_FAKE", "HOME": "/home/me", "MODE": "offline"}


@pytest.mark.parametrize(
    "name",
    [
        "HF_TOKEN",
        "WANDB_API_KEY",
        "AWS_SECRET_ACCESS_KEY",
        "MLFLOW_TRACKING_PASSWORD",
        "my_secret",
        "DB_PASS",
        "GITHUB_PAT",
        "OPENAI_KEY_2",
        "GOOGLE_CREDENTIALS",
        "SLACK_TOKENS",
        "APIKEY",
    ],
)
def test_a_secret_is_told_by_its_variables_name(name: str) -> None:
    assert secret_in(f"x/${{oc.env:{name}}}", {}) == name
    assert secret_in("a secret value stands here", {name: " secret value "}) == name


@pytest.mark.parametrize(
    "name",
    ["HOME", "SLURM_JOB_ID", "TOKENIZERS_PARALLELISM", "RAY_AUTH_TOKEN_PATH", "SSH_AUTH_SOCK", "KEYBOARD"],
)
def test_other_variables_may_be_referred_to(name: str) -> None:
    assert secret_in(f"x/${{oc.env:{name}}}", {name: "some value"}) is None
    assert secret_in("some value", {name: "some value"}) is None


def test_short_values_and_empty_ones_may_stand_in_any_text() -> None:
    assert secret_in("abc", {"A_TOKEN": "abc", "B_TOKEN": "", "C_TOKEN": "  "}) is None


@pytest.mark.parametrize(
    "override",
    [
        "telemetry.wandb=team/${oc.env:HF_TOKEN}",
        "telemetry.wandb=team/hf_FAKE_secret",
        "telemetry.wandb=${run.name}-${oc.env: HF_TOKEN }",
        "run.name=${oc.env:SAME}",
        "data.tasks[0].chat_template_kwargs.x=${oc.env:HF_TOKEN}",
        "cluster.env.NCCL_DEBUG=hf_FAKE_secret",
    ],
)
def test_settings_with_secrets_are_refused_and_the_secret_is_not_shown(
    override: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_FAKE_secret")
    monkeypatch.setenv("SAME", "hf_FAKE_secret")
    done = CliRunner().invoke(app, ["train", str(ROOT / "configs" / "quickstart.yaml"), override])
    assert done.exit_code == 2
    assert "holds the secret of the environment variable HF_TOKEN" in done.output
    assert "hf_FAKE" not in done.output


def test_settings_made_in_python_hold_no_secrets_either(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_FAKE_secret")
    config = RunConfig()
    config.run.name = "x-hf_FAKE_secret"
    with pytest.raises(
        ConfigError, match=r"^run\.name: holds the secret of the environment variable HF_TOKEN"
    ):
        validate_rewards(config)


def test_what_a_reference_stands_for_is_in_the_runs_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCRATCH", "/scratch/me")
    config = load_config(ROOT / "configs" / "quickstart.yaml", ["run.dir=${oc.env:SCRATCH}/runs"])
    (tmp_path / "config.yaml").write_text(dump_config(config))
    monkeypatch.delenv("SCRATCH")
    assert load_config(tmp_path / "config.yaml") == config
