"""Code of the user's own: where its modules are looked for, and where in it an exception was raised."""

from __future__ import annotations

import os
import re
import sys
import sysconfig
import traceback
from collections.abc import Iterable
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any, NamedTuple

from rlstack.errors import UserCodeError, for_terminal

_OURS = (
    os.path.dirname(os.path.abspath(__file__)),
    *(sysconfig.get_paths()[key] for key in ("stdlib", "platstdlib")),
)
_INSTALLED = ("site-packages", "dist-packages", "rlstack_kernels")
_TYPED = ("<stdin>", "<ipython-input")  # files that are none, and the user's all the same
_DUMPED = re.compile(r'^ *File "(.+)", line (\d+)')  # of a traceback, and of what faulthandler writes


class _PackagesFirst:
    """Finds top-level modules without looking into folders of the user's own, which are the last of sys.path.

    The end of sys.path is not enough: there a module still takes the place of a package without an
    __init__.py, such as google or megatron, and of one that is installed as a checkout.
    """

    def __init__(self) -> None:
        self.folders: set[str] = set()

    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """As importlib.abc.MetaPathFinder has it; None leaves the module to the others."""
        if path is not None:
            return None
        found = PathFinder.find_spec(name, [entry for entry in sys.path if entry not in self.folders])
        others = (each for each in sys.meta_path if each is not self and each is not PathFinder)
        return found or next(filter(None, (each.find_spec(name, None, target) for each in others)), None)


_packages_first = _PackagesFirst()


def look_last_in(folders: Iterable[str]) -> None:
    """Have `import` find modules in `folders` too, where no package and nothing else has that name."""
    for folder in folders:
        if folder not in sys.path:
            sys.path.append(folder)
            _packages_first.folders.add(folder)
    if _packages_first not in sys.meta_path:
        sys.meta_path.insert(0, _packages_first)


class Place(NamedTuple):
    """A line of a file, from 1."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


def place_of(error: BaseException) -> Place | None:
    """The innermost line of the user's on the way to `error`; None if there is none."""
    if isinstance(error, SyntaxError) and error.filename and is_users(error.filename):
        return Place(error.filename, error.lineno or 1)
    frames = traceback.extract_tb(error.__traceback__)
    return next((Place(f.filename, f.lineno or 1) for f in reversed(frames) if is_users(f.filename)), None)


def place_in_dump(text: str) -> Place | None:
    """As `place_of`, of the stack that faulthandler has written to `text`, innermost line first."""
    found = (_DUMPED.match(line) for line in text.splitlines())
    places = (Place(match[1], int(match[2])) for match in found if match)
    return next((place for place in places if is_users(place.file)), None)


def is_users(file: str) -> bool:
    """Whether the code of `file`, as a traceback has it, is the user's own."""
    if file.startswith("<"):
        return file.startswith(_TYPED)
    path = os.path.abspath(file)
    installed = any(part in _INSTALLED for part in path.split(os.sep))
    return not installed and not path.startswith(tuple(f"{folder}{os.sep}" for folder in _OURS))


def raised_by_user(error: BaseException, *, below: int = 1) -> UserCodeError:
    """What to raise from `error`, which a call into code of the user's own has raised.

    below: frames of the traceback that are the caller's, not the called code's.
    """
    frames = traceback.extract_tb(error.__traceback__)[below:]
    place = place_of(error) or (Place(frames[0].filename, frames[0].lineno or 1) if frames else None)
    what = in_one_line(error)
    if place is None:
        return UserCodeError(what)
    if not what.startswith(f"{place}: "):
        what = f"{place}: {what}"
    return UserCodeError(what, file=place.file, line=place.line)


def in_one_line(error: BaseException) -> str:
    """ "FILE:LINE: TYPE: MESSAGE", without the place if no code of the user's is to blame."""
    place, said = place_of(error), for_terminal(" ".join(str(error).split()))
    what = f"{type(error).__name__}: {said}".rstrip(": ")
    return what if place is None else f"{place}: {what}"
