"""Installed distributions, from their metadata; torch's own version file; modules that hide a package."""

from __future__ import annotations

import importlib.util
import re
from importlib import metadata
from pathlib import Path

from rlstack.config.surroundings import shadows
from rlstack.doctor.facts import Installed, Packages, Torch

RLSTACK = "rlstack-megatron"


def look() -> Packages:
    """What is installed in this environment, and what hides it."""
    installed: dict[str, Installed] = {}
    for distribution in metadata.distributions():
        if (found := _installed(distribution)) is not None:
            installed.setdefault(found.name, found)  # the first on the path is what is imported
    return Packages(
        installed=installed,
        requires_python=_requires_python(),
        torch=_torch(),
        shadows=tuple(shadows()),
        has_packaging=importlib.util.find_spec("packaging") is not None,
    )


def _installed(distribution: metadata.Distribution) -> Installed | None:
    """None for a folder without readable metadata, which an interrupted installation leaves."""
    try:
        name, version = distribution.metadata["Name"], distribution.version
        extras = distribution.metadata.get_all("Provides-Extra") or ()
        if not name or not version:
            return None
    except (OSError, KeyError, TypeError):
        return None
    return Installed(
        name=normalised(name),
        version=version,
        requires=tuple(distribution.requires or ()),
        extras=tuple(map(str, extras)),
    )


def normalised(name: str) -> str:
    """A distribution's name as packaging.utils.canonicalize_name has it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _requires_python() -> str | None:
    try:
        return metadata.metadata(RLSTACK)["Requires-Python"]
    except (metadata.PackageNotFoundError, KeyError):
        return None


def _torch() -> Torch | None:
    """Read as text: importing torch takes seconds, and may be what fails."""
    found = importlib.util.find_spec("torch")
    if found is None or not found.submodule_search_locations:
        return None
    try:
        text = Path(found.submodule_search_locations[0], "version.py").read_text(encoding="utf-8")
    except OSError:
        return None
    version = re.search(r"^__version__\s*=\s*['\"]([^'\"]+)", text, re.MULTILINE)
    cuda = re.search(r"^cuda\b[^=]*=\s*['\"]([^'\"]+)", text, re.MULTILINE)
    return Torch(version=version[1], cuda=cuda[1] if cuda else None) if version else None
