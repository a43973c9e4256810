"""The shape of the model that a run is planned for: its folder need not be there."""

from __future__ import annotations

from pathlib import Path

from rlstack.errors import ConfigError
from rlstack.policy.architecture import Architecture
from rlstack.policy.known_models import KNOWN_MODELS

_SUFFIX = "-instruct"  # tuned models have their base's shape


def planned_model(folder: str) -> tuple[str, Architecture]:
    """The name and shape of policy.model: of its config.json, or else of the known model of the same name.

    Raises ConfigError if there is neither.
    """
    path = Path(folder)
    if (path / "config.json").is_file():
        return path.name, Architecture.from_folder(path)
    known = {name.lower(): name for name in KNOWN_MODELS}
    name = known.get(path.name.lower().removesuffix(_SUFFIX))
    if name is None:
        raise ConfigError(
            f"policy.model = {folder}: there is no config.json, and the name is not one of "
            f"{' | '.join(KNOWN_MODELS)}; give a folder with a config.json, or one of these names"
        )
    return name, KNOWN_MODELS[name]
