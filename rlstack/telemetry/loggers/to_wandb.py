"""A run of Weights & Biases, of numbers and settings only.

What the package collects beside them is off: the terminal's text, which is in no form for it; code, git, host
and packages, which may say more than the user means to send; the machine's load, which timeline.jsonl and
gpus.jsonl have for each role, while W&B would sample this process.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from pathlib import Path

os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # no reports of its own errors to its makers

import wandb
from wandb.errors import UsageError

from rlstack.telemetry.loggers.backend import Opened, Scalar, Start, Values, as_given

INIT_S = 30.0  # for the server to answer
NO_SERVER = ("offline", "disabled", "dryrun")
EXIT_STATUS = {"completed": 0, "interrupted": 255}  # which W&B shows as finished and killed, 1 as failed


class WeightsAndBiases:
    """Steps are W&B's own, which takes each once, in order: of those that come again the first counts."""

    def open(self, start: Start) -> Opened:
        """Begin the run, or go on with the one whose id `start` has.

        Raises what W&B does where its server does not answer within INIT_S or takes no key of this user.
        """
        entity, _, project = start.target.rpartition("/")
        run_id = start.ids.get("id", uuid.uuid4().hex[:8])
        self._run = wandb.init(
            entity=entity or None,
            project=project,
            name=start.name,
            id=run_id,
            resume="allow" if start.ids else None,
            settings=_settings(start.folder),
        )
        self._run.config.update(start.settings, allow_val_change=True)
        self._last_step = 0
        offline = f"offline; to send it: wandb sync {as_given(Path(start.folder))}/wandb/*-{run_id}"
        return Opened({"id": run_id}, offline if self._run.offline else str(self._run.url))

    def log(self, step: int, values: Values) -> None:
        self._last_step = max(self._last_step, step)
        self._run.log(values, step=step)

    def alarm(self, step: int, title: str, text: str) -> None:
        self._run.alert(title=title, text=f"step {step}: {text}", level="WARN")

    def rewind(self, step: int) -> None:
        """Nothing: what comes again is left out by W&B's rule."""

    def finish(self, status: str, summary: Mapping[str, Scalar]) -> None:
        self._run.summary.update({"summary/status": status, **summary})
        self._run.finish(exit_code=EXIT_STATUS.get(status, 1))


def log_in() -> None:
    """Have the server take this user's key, unless WANDB_MODE or `wandb offline` says that none is asked.

    Raises what wandb does where there is no key, where it is not taken, or where nobody answers.
    """
    if wandb.setup().settings.mode in NO_SERVER:
        return
    if not wandb.login(verify=True, timeout=int(INIT_S)):
        raise UsageError("No API key configured. Use `wandb login` to log in.")


def _settings(folder: str) -> wandb.Settings:
    return wandb.Settings(
        root_dir=folder,
        init_timeout=INIT_S,
        silent=True,
        symlink=False,
        console="off",
        disable_code=True,
        save_code=False,
        disable_git=True,
        x_save_requirements=False,
        x_disable_meta=True,
        x_disable_machine_info=True,
        x_disable_stats=True,
        host="",
    )
