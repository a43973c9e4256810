"""What installed packages ask of each other, as their metadata has it. Pure."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from rlstack.doctor.facts import Installed

RLSTACK = "rlstack-megatron"


class Need(NamedTuple):
    """One requirement of an installed distribution, and what there is."""

    name: str
    requirement: str  # the name with the versions that are accepted
    extras: tuple[str, ...]  # of `name`
    wanted_by: str
    version: str | None  # that is installed; None: it is missing
    is_met: bool


def unmet(installed: Mapping[str, Installed], *, extra: str) -> list[Need]:
    """Of rlstack with `extra`, of all that this brings, and what else is installed asks of other versions.

    What is missing counts only among what rlstack brings. Needs `packaging`.
    """
    found = list(brought(installed, (extra,)))
    names = {need.wanted_by for need in found}
    others = (distribution for name, distribution in sorted(installed.items()) if name not in names)
    rest = (need for other in others for need in needs(installed, other, ()) if need.version is not None)
    return _once([*found, *rest])


def missing_by_name(installed: Mapping[str, Installed], *, extra: str) -> list[Need]:
    """What rlstack itself needs and is not installed, without `packaging`: markers are not looked into."""
    found = []
    for text in installed[RLSTACK].requires:
        requirement, _, marker = (part.strip() for part in text.partition(";"))
        match = re.match(r"[\w.-]+", requirement)
        if match is None or ("extra" in marker and not re.search(rf"""extra == ['"]{extra}['"]""", marker)):
            continue
        name = re.sub(r"[-_.]+", "-", match[0]).lower()
        if name not in installed:
            found.append(Need(name, requirement, (), RLSTACK, None, False))
    return found


def needs(
    installed: Mapping[str, Installed], distribution: Installed, extras: tuple[str, ...]
) -> Iterator[Need]:
    """What `distribution` needs on this Python, with what `extras` of it add."""
    from packaging.requirements import InvalidRequirement, Requirement
    from packaging.utils import canonicalize_name

    for text in distribution.requires:
        try:
            need = Requirement(text)
        except InvalidRequirement:
            continue
        if need.marker and not any(need.marker.evaluate({"extra": extra}) for extra in extras or ("",)):
            continue
        name = canonicalize_name(need.name)
        version = installed[name].version if name in installed else None
        yield Need(
            name=name,
            requirement=f"{need.name}{need.specifier}",
            extras=tuple(sorted(need.extras)),
            wanted_by=distribution.name,
            version=version,
            is_met=version is not None and need.specifier.contains(version, prereleases=True),
        )


def brought(installed: Mapping[str, Installed], extras: tuple[str, ...]) -> Iterator[Need]:
    """All that rlstack with `extras` needs, and what that needs in turn.

    Breadth first, so that a package is said to be needed by what is nearest to rlstack.
    """
    waiting: deque[tuple[str, tuple[str, ...]]] = deque([(RLSTACK, extras)])
    seen = set(waiting)
    while waiting:
        name, extras = waiting.popleft()
        if name not in installed:
            continue
        for need in needs(installed, installed[name], extras):
            yield need
            if (node := (need.name, need.extras)) not in seen:
                seen.add(node)
                waiting.append(node)


def _once(found: Iterable[Need]) -> list[Need]:
    """Those that are not met: a missing package once, a conflict once for each requirement."""
    kept: dict[tuple[str, str], Need] = {}
    for need in found:
        if not need.is_met:
            kept.setdefault((need.name, "" if need.version is None else need.requirement), need)
    return list(kept.values())
