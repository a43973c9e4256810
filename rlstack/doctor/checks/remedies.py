"""Commands to paste."""

from __future__ import annotations

import shlex

from rlstack.doctor.facts import Facts


def pip_install(facts: Facts, *requirements: str) -> str:
    """The command that installs `requirements` into this environment."""
    return _pip(facts, "install", *requirements)


def pip_uninstall(facts: Facts, *names: str) -> str:
    """The command that removes `names` from it."""
    return _pip(facts, "uninstall", "--yes", *names)


def set_up(facts: Facts) -> str:
    """Install what pyproject.toml asks for on such a machine."""
    return f"make -B setup{'-gpu' if facts.extra == 'gpu' else ''}"


def set_up_without(facts: Facts, *names: str) -> str:
    """The same where pip takes what is there for what is needed."""
    return f"{pip_uninstall(facts, *names)} && {set_up(facts)}"


def _pip(facts: Facts, *arguments: str) -> str:
    """Of the Python that this was asked with, whether its environment is activated or not."""
    return shlex.join([facts.machine.executable, "-m", "pip", *arguments])
