"""The variables of this process by which Ray decides how it meets other processes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import ray._raylet

from rlstack.config.ray_token import MODE

_raylet: Any = ray._raylet  # compiled, and its types say less than it has


def demand_token() -> None:
    """Have this process talk to Rays with its user's token, whatever the environment says."""
    _set({MODE: "token"})


@contextmanager
def environment(variables: Mapping[str, str | None]) -> Iterator[None]:
    """Set variables, or unset them (None), as long as the context lasts; Ray reads them anew."""
    before = {name: os.environ.get(name) for name in variables}
    _set(variables)
    try:
        yield
    finally:
        _set(before)


def _set(variables: Mapping[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    # Ray keeps what it has read: that there are tokens, and its own.
    _raylet.Config.initialize("")
    _raylet.AuthenticationTokenLoader.instance().reset_cache()
