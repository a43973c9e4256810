"""All loggers of a run, as its recorder has them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from rlstack.config.load import dump_config
from rlstack.config.loggers import wanted
from rlstack.config.schema import RunConfig
from rlstack.errors import ConfigError
from rlstack.telemetry.loggers.backend import Opened, Scalar, Start, numbers, single_values
from rlstack.telemetry.loggers.remote import LoggerError, Remote
from rlstack.telemetry.run_dir import RunDirectory, write_json
from rlstack.telemetry.settings_section import flat

IDS = "loggers.json"  # in the run's folder: with what each logger goes on with the same run
OPEN_S = 60.0  # for all of them to begin
CLOSE_S = 30.0  # for all of them to end
NOT_SUMMARISED = (
    "status",
    "error",
    "roles",
    "versions",
    "hardware",
)  # of summary.json: said otherwise, or too much
REMEDIES = {
    "tensorboard": "set it to false",
    "wandb": "run `wandb login`, set WANDB_MODE=offline in the environment, or set it to null",
    "mlflow": "give sqlite:///FILE or the address of a server that runs, or set it to null",
}


class Loggers:
    """Nothing here waits for a logger but `open` and `close`, and a logger that fails is left out."""

    def __init__(self, remotes: Iterable[Remote]) -> None:
        self._remotes = list(remotes)

    @classmethod
    def of_run(cls, config: RunConfig, run: RunDirectory, *, note: Callable[[str], object]) -> Loggers:
        """As `open`, for a `run` that is closed where that fails."""
        try:
            return cls.open(config, run.path, note=note)
        except BaseException:
            run.close()
            raise

    @classmethod
    def open(cls, config: RunConfig, folder: Path, *, note: Callable[[str], object]) -> Loggers:
        """Begin with those that `config` asks for, or go on with what they have of the run in `folder`.

        Raises ConfigError if one of them cannot begin.
        """
        targets = wanted(config.telemetry)
        ids = _read_ids(folder)
        settings, defaults = _settings(config), _settings(RunConfig())
        changed = [key for key, value in settings.items() if value != defaults.get(key)]

        def failed(name: str, why: str) -> None:
            note(f"{name}: {why}; metrics.jsonl has everything")

        remotes = {
            name: Remote(
                name,
                Start(
                    target=target,
                    name=config.run.name,
                    folder=str(folder),
                    settings=settings,
                    changed=changed,
                    ids=_ids_of(ids, name, target),
                ),
                failed=failed,
            )
            for name, target in targets.items()
        }
        opened = _all_opened(remotes, targets)
        for name, (_, place) in opened.items():
            note(f"{name}: {place}")
        if opened:
            new = {name: {"target": targets[name], **each.ids} for name, each in opened.items()}
            write_json(folder / IDS, ids | new)
        return cls(remotes.values())

    def step(self, row: Mapping[str, Any]) -> None:
        """Log a row of metrics.jsonl."""
        self._send("log", row["step"], numbers(row))

    def evaluation(self, metrics: Mapping[str, Any]) -> None:
        """Log an evaluation outside the steps, at its version."""
        self._send("log", metrics["eval/version"], numbers(metrics))

    def alarms(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Log rows of alarms.jsonl."""
        for row in rows:
            self._send("alarm", row["step"], row["alarm"], row["reason"])

    def rewind(self, step: int) -> None:
        """Go on as after `step`."""
        self._send("rewind", step)

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Log how the run has ended. Does not wait for it; `close` does."""
        single = {key: value for key, value in summary.items() if key not in NOT_SUMMARISED}
        self._send("finish", summary["status"], dict(single_values(single)))

    def close(self) -> None:
        """End all of them, within CLOSE_S seconds."""
        until = time.monotonic() + CLOSE_S
        for remote in self._remotes:
            remote.close(max(0.0, until - time.monotonic()))

    def _send(self, method: str, *arguments: Any) -> None:
        for remote in self._remotes:
            remote.send(method, *arguments)


def _all_opened(remotes: Mapping[str, Remote], targets: Mapping[str, Any]) -> dict[str, Opened]:
    """Raises ConfigError, with all of them ended, for each that could not."""
    until = time.monotonic() + OPEN_S
    opened: dict[str, Opened] = {}
    problems: list[str] = []
    for name, remote in remotes.items():
        try:
            opened[name] = remote.opened(max(0.0, until - time.monotonic()))
        except LoggerError as error:
            problems.append(refusal(name, targets[name], str(error)))
    if problems:
        for remote in remotes.values():
            remote.kill()
        raise ConfigError("\n".join(problems))
    return opened


def refusal(name: str, target: Any, why: str) -> str:
    """What to say of the logger `name`, whose setting is `target`, that cannot begin."""
    return f"telemetry.{name} = {'true' if target is True else target}: {why}; {REMEDIES[name]}"


def _settings(config: RunConfig) -> dict[str, Scalar]:
    """All of them by path; lists as JSON."""
    values = flat(yaml.safe_load(dump_config(config)))
    return {key: text if text.startswith(("[", "{")) else json.loads(text) for key, text in values.items()}


def _read_ids(folder: Path) -> dict[str, dict[str, Any]]:
    path = folder / IDS
    found: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found


def _ids_of(ids: Mapping[str, Mapping[str, Any]], name: str, target: Any) -> dict[str, str]:
    """Of the run that this logger has already; none where it was another project's or server's."""
    known = ids.get(name, {})
    return (
        {key: value for key, value in known.items() if key != "target"}
        if known.get("target") == target
        else {}
    )
