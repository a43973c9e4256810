"""What `rlstack train` would refuse of CONFIG."""

from __future__ import annotations

from collections.abc import Iterator

from rlstack.doctor.facts import Facts
from rlstack.doctor.finding import Verdict, ok, problem


def settings(facts: Facts) -> Iterator[Verdict]:
    """What `rlstack train` would refuse of CONFIG, and why it could not be asked."""
    found = facts.settings
    if found is None:
        return
    if found.error is not None:
        yield problem(f"{found.path} could not be checked: {found.error}", "see to the packages above first")
    for line in found.refused:
        yield refused(line)
    if not found.error and not found.refused and not found.model_refused:
        yield ok(f"{found.path}: nothing that `rlstack train` would refuse")


def model(facts: Facts) -> Iterator[Verdict]:
    """What it would refuse of policy.model."""
    for line in facts.settings.model_refused if facts.settings is not None else ():
        yield refused(line)


def refused(line: str) -> Verdict:
    """A line of a ConfigError has the remedy behind its last semicolon, mostly."""
    found, _, remedy = line.rpartition("; ")
    return problem(found, remedy) if found else problem(line, "correct the setting")
