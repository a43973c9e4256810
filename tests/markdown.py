"""What the project's Markdown says, taken apart for the tests that hold it against the code."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *(page for room in ("docs", "configs", "benchmarks") for page in (ROOT / room).rglob("*.md")),
    ]
)
PARSER = MarkdownIt("commonmark").enable("table")


@dataclass(frozen=True, slots=True)
class Block:
    """A block of code, fenced or indented; `language` is empty where none is given."""

    page: Path
    line: int  # of the page, from 1
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


@cache
def tokens(page: Path) -> list[Token]:
    return PARSER.parse(page.read_text(encoding="utf-8"))


def inline(page: Path) -> Iterator[tuple[int, Token]]:
    """Each piece of running text with its line."""
    for token in tokens(page):
        if token.type == "inline":
            line = (token.map or [0])[0] + 1
            for child in token.children or ():
                yield line, child


def blocks(page: Path) -> list[Block]:
    return [
        Block(page, (token.map or [0])[0] + 1, (token.info.split() or [""])[0], token.content)
        for token in tokens(page)
        if token.type in ("fence", "code_block")
    ]


def links(page: Path) -> list[tuple[int, str]]:
    """Line and target of each link and image."""
    found = [(line, token.attrGet("href") or token.attrGet("src")) for line, token in inline(page)]
    return [(line, str(target)) for line, target in found if target]


def code(page: Path) -> list[tuple[int, str]]:
    """Line and text of each piece of code in running text."""
    return [(line, token.content) for line, token in inline(page) if token.type == "code_inline"]


def headings(page: Path) -> list[str]:
    """The text of each heading."""
    texts = []
    for opening, text in zip(tokens(page), tokens(page)[1:], strict=False):
        if opening.type == "heading_open":
            texts.append("".join(t.content for t in text.children or () if t.type in ("text", "code_inline")))
    return texts


def anchors(page: Path) -> set[str]:
    """What a link may have after its #: those of the headings for which GitHub and MkDocs agree."""
    return _numbered(map(_github, headings(page)), "-") & _numbered(map(_mkdocs, headings(page)), "_")


def _github(text: str) -> str:
    return re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")


def _mkdocs(text: str) -> str:
    """As Python-Markdown's toc extension, which reduces letters to ASCII."""
    plain = re.sub(r"[^\w\s-]", "", text.encode("ascii", "ignore").decode()).strip().lower()
    return re.sub(r"[-\s]+", "-", plain)


def _numbered(slugs: Iterator[str], joint: str) -> set[str]:
    seen: Counter[str] = Counter()
    found = set()
    for slug in slugs:
        found.add(f"{slug}{joint}{seen[slug]}" if seen[slug] else slug)
        seen[slug] += 1
    return found
