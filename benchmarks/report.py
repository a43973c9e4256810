"""What every benchmark writes: rows, and enough to know where they come from."""

from __future__ import annotations

import datetime
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from rlstack.telemetry.environment import hardware, package_versions


def write(rows: Sequence[Mapping[str, Any]], out: Path | None, *, title: str) -> None:
    """Print the rows as a table, and write them to `out` with machine, versions, command and date."""
    table = Table(*rows[0], title=title)
    for row in rows:
        table.add_row(*(_text(value) for value in row.values()))
    console = Console()
    if not console.is_terminal:
        console.width = 200  # a file has room for all columns
    console.print(table)
    if out is not None:
        save(rows, out)


def save(rows: Sequence[Mapping[str, Any]], out: Path) -> None:
    """Write the rows to `out`; so can those be that there are so far."""
    command = shlex.join(["python", *(Path(sys.argv[0]).as_posix(), *sys.argv[1:])])
    result = {
        "machine": hardware(),
        "versions": package_versions(),
        "command": command,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "rows": list(rows),
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
