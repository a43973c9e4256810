"""What is found: a verdict of one check, and the same with its name and subject."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    ok = "ok"
    note = "note"  # worth knowing; a run may be slow, or lack something that it can do without
    problem = "problem"  # a run fails, or would be wrong


class Subject(StrEnum):
    """In the order in which they are shown."""

    machine = "machine"
    packages = "packages"
    imports = "imports"
    gpus = "gpus"
    environment = "environment"
    network = "network"
    ray = "ray"
    disk = "disk"
    config = "config"


@dataclass(frozen=True, slots=True)
class Verdict:
    level: Level
    found: str
    remedy: str = ""  # what to do about it


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    name: str  # one of the catalogue's
    subject: Subject
    level: Level
    found: str
    remedy: str


def ok(found: str) -> Verdict:
    """Nothing to do."""
    return Verdict(Level.ok, found)


def note(found: str, remedy: str = "") -> Verdict:
    """Worth knowing; a run starts all the same."""
    return Verdict(Level.note, found, remedy)


def problem(found: str, remedy: str) -> Verdict:
    """A run fails, or does something else than it says."""
    return Verdict(Level.problem, found, remedy)
