"""Markdown that GitHub and MkDocs read alike."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table. What would end a cell, or be taken for emphasis, is escaped."""
    lines = [head, ["---"] * len(head), *([_escaped(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _escaped(cell: str) -> str:
    parts = cell.replace("|", "\\|").split("`")  # every second one is code
    return "`".join(part.replace("*", "\\*") if i % 2 == 0 else part for i, part in enumerate(parts))


def code(text: str) -> str:
    """`text` as it is typed."""
    return f"`{text}`"


def page(title: str, source: str, *blocks: str) -> str:
    """A whole file: the title, what it is made from, and `blocks`, a blank line between them."""
    made = f"<!-- Made from {source} by tools/reference_docs.py; change it there. -->"
    return "\n\n".join([made, f"# {title}", *blocks]) + "\n"
