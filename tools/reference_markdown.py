"""Markdown that GitHub and MkDocs read alike."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; `|` in a cell would end it, and is escaped."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def code(text: str) -> str:
    """`text` as it is typed."""
    return f"`{text}`"


def page(title: str, source: str, *blocks: str) -> str:
    """A whole file: the title, what it is made from, and `blocks`, a blank line between them."""
    made = f"<!-- Made from {source} by tools/reference_docs.py; change it there. -->"
    return "\n\n".join([made, f"# {title}", *blocks]) + "\n"
