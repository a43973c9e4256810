"""The folder of a tuning: what it was asked, its runs, what came of it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from rlstack.config.load import dump_config, load_stored
from rlstack.config.schema import RunConfig
from rlstack.errors import ConfigError
from rlstack.files import try_lock, written_at_once
from rlstack.telemetry.run_links import refuse_links


class Workspace:
    """A context that holds the folder: no other tuning may use it meanwhile.

    config.yaml: the settings that all runs share; calibration/ and trials/: the runs' folders, each with its
    output in NAME.log; tune.json, report.html: the result.
    """

    def __init__(self, out: Path, config: RunConfig) -> None:
        """Make the folder, or go on with the one that is there.

        Raises ConfigError if it holds something else, other settings' tuning, one that is going on, or links.
        """
        self.out = out
        self.config = out / "config.yaml"
        self.trials = out / "trials"
        self.calibration = out / "calibration"
        try:
            out.mkdir(parents=True, exist_ok=True)
            refuse_links(out.resolve(), below=(self.trials.name, self.calibration.name))
            self._lock = _lock(out)
        except OSError as error:
            raise ConfigError(f"--out {out}: {error.strerror}; give a folder to write to") from None
        try:
            self._hold_to(config)
        except ConfigError:
            os.close(self._lock)
            raise
        self.trials.mkdir(exist_ok=True)
        self.calibration.mkdir(exist_ok=True)

    def __enter__(self) -> Workspace:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._lock)

    def _hold_to(self, config: RunConfig) -> None:
        if not self.config.exists():
            if any(self.out.iterdir()):
                raise ConfigError(f"--out {self.out}: is not the folder of a tuning; give another one")
            with written_at_once(self.config) as file:
                file.write(dump_config(config))
            return
        there, ours = (yaml.safe_load(dump_config(each)) for each in (load_stored(self.config), config))
        if found := list(differences(there, ours)):
            texts = [f"--out {self.out} holds a tuning with {what}; give another --out" for what in found]
            raise ConfigError("\n".join(texts))


def differences(there: Any, ours: Any, path: str = "") -> Iterator[str]:
    """One text for each setting in which they differ. Pure."""
    if isinstance(there, Mapping) and isinstance(ours, Mapping):
        for key in dict(there) | dict(ours):
            yield from differences(there.get(key), ours.get(key), f"{path}.{key}" if path else str(key))
    elif there != ours:
        yield f"{path} = {there}, not {ours}"


def _lock(folder: Path) -> int:
    """As files.try_lock; refuses a folder that another tuning holds."""
    descriptor = try_lock(folder)
    if descriptor is None:
        raise ConfigError(
            f"--out {folder}: a tuning is going on there; wait for its end, or give another --out"
        )
    return descriptor
