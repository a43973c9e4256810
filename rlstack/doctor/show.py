"""Findings as text, as a table on a terminal and as JSON. Words tell the level; colour only helps."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from itertools import groupby

from rlstack.doctor.finding import Finding, Level

SYMBOLS = {Level.ok: "✓", Level.note: "!", Level.problem: "✗"}
PLAIN_SYMBOLS = {Level.ok: "+", Level.note: "!", Level.problem: "x"}  # where the terminal knows no others
LEVEL_WIDTH = len("  x problem")
STYLES = {Level.ok: "green", Level.note: "yellow", Level.problem: "bold red"}


def as_text(findings: Sequence[Finding], *, encoding: str) -> str:
    """One line for each, with a line below it for what to do."""
    symbols, name_width = symbols_in(encoding), _name_width(findings)
    lines = []
    for subject, members in groupby(findings, key=lambda finding: finding.subject):
        lines.append(subject.value)
        for finding in members:
            level = f"{symbols[finding.level]} {finding.level.value:7}"
            lines.append(f"  {level}  {finding.name:{name_width}}  {_printable(finding.found)}")
            if finding.remedy:
                lines.append(_remedy(finding, name_width))
    return "\n".join(lines)


def print_table(findings: Sequence[Finding], *, encoding: str) -> None:
    """The same on a terminal, in colour, with long lines broken below their column. Needs rich."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    symbols, name_width = symbols_in(encoding), _name_width(findings)
    console = Console(highlight=False)
    for subject, members in groupby(findings, key=lambda finding: finding.subject):
        console.print(Text(subject.value, style="bold"))
        for finding in members:
            table = Table.grid(padding=(0, 2))
            table.add_column(width=LEVEL_WIDTH)
            table.add_column(width=name_width)
            table.add_column(overflow="fold")
            level = Text(f"  {symbols[finding.level]} {finding.level.value}", style=STYLES[finding.level])
            table.add_row(level, finding.name, Text(_printable(finding.found)))
            console.print(table)
            if finding.remedy:  # in one piece, so that it can be pasted
                console.print(Text(_remedy(finding, name_width), style="bold"), soft_wrap=True)


def as_json(findings: Sequence[Finding]) -> str:
    """The findings and their number of problems, for other programs."""
    return json.dumps(
        {"problems": num_problems(findings), "findings": [asdict(finding) for finding in findings]}, indent=2
    )


def summary(findings: Sequence[Finding], *, is_whole: bool) -> str:
    """is_whole: whether nothing was left out on request."""
    count = num_problems(findings)
    if count:
        return f"{count} problem{'s' if count > 1 else ''}"
    return "ready" if is_whole else "ready, as far as was asked for"


def num_problems(findings: Sequence[Finding]) -> int:
    """How many of the findings keep a run from working."""
    return sum(finding.level is Level.problem for finding in findings)


def symbols_in(encoding: str) -> dict[Level, str]:
    """Those that can be written in `encoding`."""
    try:
        "".join(SYMBOLS.values()).encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return PLAIN_SYMBOLS
    return SYMBOLS


def _name_width(findings: Sequence[Finding]) -> int:
    return max((len(finding.name) for finding in findings), default=0)


def _remedy(finding: Finding, name_width: int) -> str:
    return f"{'':{LEVEL_WIDTH + 2 + name_width + 2}}-> {_printable(finding.remedy)}"


def _printable(text: str) -> str:
    """What a file or a library says neither moves the cursor nor begins a line."""
    return "".join(character if character.isprintable() else "?" for character in text)
