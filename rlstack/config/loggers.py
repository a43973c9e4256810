"""Which loggers a run asks for, and what is refused about them before any process starts."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from urllib.parse import urlsplit

from rlstack.config.schema import Telemetry
from rlstack.urls import secret_part, without_secrets


def wanted(telemetry: Telemetry) -> dict[str, bool | str]:
    """Their settings by name, without those that are off; each is also its package's and its extra's name."""
    every = {"tensorboard": telemetry.tensorboard, "wandb": telemetry.wandb, "mlflow": telemetry.mlflow}
    return {name: value for name, value in every.items() if value not in (None, False)}


def logger_problems(telemetry: Telemetry) -> list[str]:
    """Names of projects and addresses that cannot work."""
    return [*_project(telemetry.wandb), *_address(telemetry.mlflow)]


def missing_packages(telemetry: Telemetry) -> list[str]:
    """Loggers whose package is not installed."""
    return [
        f"telemetry.{name} = {str(value).lower() if value is True else value}: its package is not installed; "
        f"pip install 'rlstack-megatron[{name}]', or leave the setting out"
        for name, value in wanted(telemetry).items()
        if not _is_installed(name)
    ]


def _is_installed(package: str) -> bool:
    """A folder of that name, which W&B leaves in the working directory, is no package."""
    spec = find_spec(package)
    return spec is not None and spec.origin is not None


def _project(name: str | None) -> Iterator[str]:
    if name is None:
        return
    parts = name.split("/")
    if len(parts) > 2 or not all(part.strip() for part in parts) or name.lower() in ("true", "false"):
        yield f"telemetry.wandb = {name}: PROJECT | ENTITY/PROJECT is accepted; name a project of W&B"


def _address(uri: str | None) -> Iterator[str]:
    if uri is None:
        return
    if (part := secret_part(uri)) is not None or not uri.isprintable():
        yield (
            f"telemetry.mlflow = {without_secrets(uri)}: an address without {part or 'control characters'} "
            "is accepted, for it is kept in the run's files; give MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, in the environment"
        )
    elif urlsplit(uri).scheme in ("", "file"):
        yield (
            f"telemetry.mlflow = {uri}: http://HOST:PORT | https://HOST | sqlite:///FILE is accepted, for "
            "MLflow takes no new runs in folders; give sqlite:///mlflow.db"
        )
