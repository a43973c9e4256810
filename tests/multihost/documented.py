"""The commands of docs/how-to/clusters.md for nodes of one's own, as they are pasted on hosts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.markdown import ROOT, tokens
from tests.multihost.hosts import NETWORK, SHARED, address

PAGE = ROOT / "docs" / "how-to" / "clusters.md"
SECTION = "Nodes of your own"
PORTS = '"${ports[@]}"'  # with which the commands that start Ray end
# What a shell that stays open keeps, in a file, for another one.
KEEP = "declare -px TMPDIR RAY_AUTH_MODE >~/shell"
# In the place of ssh: what it is to run on another host, with its input, goes to a folder that all see.
SSH = f"""#!/bin/bash
mkdir -p {SHARED}/ssh; cat >{SHARED}/ssh/$1.input; printf '%s' "$2" >{SHARED}/ssh/$1.command
"""


class Commands(NamedTuple):
    """The section's blocks, in their order."""

    token: str
    head: str
    other: str
    run: str
    end: str


def commands() -> Commands:
    """Those of the page, with the addresses and the shared folder of these hosts."""
    found = [
        text.replace("10.0.0.", f"{NETWORK}.").replace("/shared/runs", str(SHARED))
        for text in _blocks(PAGE, SECTION)
    ]
    return Commands(*found)


def starting(host: int, options: str = "") -> str:
    """The commands that start Ray on a host, with further options of `ray start`."""
    given = commands()
    text = given.head if host == 1 else given.other.replace(address(2), address(host))
    assert text.count(PORTS) == 1, text
    return text.replace(PORTS, f"{PORTS} {options}") + KEEP


def ending() -> str:
    """The commands that end Ray on a host, in the shell that has started it."""
    return f"source ~/shell\n{commands().end}"


def _blocks(page: Path, heading: str) -> Iterator[str]:
    is_inside = False
    for opening, token in zip(tokens(page), tokens(page)[1:], strict=False):
        if opening.type == "heading_open" and opening.tag == "h2":
            is_inside = token.content == heading
        if is_inside and token.type == "fence" and token.info.split() == ["bash"]:
            yield token.content
