"""The code that a process on a node runs, as digests, and in what the files of a node differ from others."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path

from rlstack.config.model_digests import FileDigest, Files, digest_of_content
from rlstack.user_code import is_users

PACKAGES = ("rlstack", "rlstack_kernels")
_NUM_NAMED = 3  # files in one line


def package_folder(name: str = PACKAGES[0]) -> Path | None:
    """The folder from which `import` takes the package in this process; None if there is none."""
    spec = find_spec(name)
    return None if spec is None or spec.origin is None else Path(spec.origin).parent


def digests_of_sources() -> Files:
    """The digests of all modules of PACKAGES as this process imports them, by their paths, package first.

    Hidden files, which editors leave, are no modules.
    """
    folders = {name: folder for name in PACKAGES if (folder := package_folder(name)) is not None}
    paths = {
        f"{name}/{path.relative_to(folder).as_posix()}": path
        for name, folder in folders.items()
        for path in sorted(folder.rglob("*.py"))
    }
    modules = {name: path for name, path in paths.items() if "/." not in name and path.is_file()}
    return {name: digest_of_content(path.read_bytes()) for name, path in modules.items()}


def files_of_user(value: object) -> list[Path]:
    """The files, of the package or module that defines `value`, which this process has imported.

    None where it is not the user's own, or is sent to the nodes by value, as what `__main__` defines.
    """
    defined = value if hasattr(value, "__qualname__") else type(value)
    package = str(defined.__module__).partition(".")[0]
    if package == "__main__":
        return []
    modules = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == package}
    files = [getattr(module, "__file__", None) for _, module in sorted(modules.items())]
    return [Path(file).absolute() for file in files if file is not None and is_users(file)]


def digests_of_user(files: Iterable[Path]) -> Files:
    """The digests of those of the `files` that are there, by their path.

    A node that lacks one may have the module elsewhere, and says so itself if it does not.
    """
    return {str(file): digest_of_content(file.read_bytes()) for file in files if file.is_file()}


def differences(theirs: Files, own: Files) -> str:
    """The first files in which a node differs from the driver, with how, in one line; "" for none."""
    found = list(_differences(theirs, own)) if theirs != own else []
    more = f" and {len(found) - _NUM_NAMED} more" if len(found) > _NUM_NAMED else ""
    return ", ".join(found[:_NUM_NAMED]) + more


def _differences(theirs: Files, own: Files) -> Iterator[str]:
    for name in dict.fromkeys([*own, *theirs]):
        there, here = theirs.get(name), own.get(name)
        if there != here and (how := _difference(there, here)):
            yield f"{name} ({how})"


def _difference(there: FileDigest | None, here: FileDigest | None) -> str:
    if there is None:
        return "not there"
    if there.trouble:
        return f"{there.trouble}, on the node"
    if here is None:
        return "which the driver does not have"
    if there.num_bytes != here.num_bytes:
        return f"{there.num_bytes:,} bytes there, {here.num_bytes:,} here"
    return "other content"
