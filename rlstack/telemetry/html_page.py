"""HTML pages that are one file and open without a network: sections of text, tables and Plotly figures.

    write_page(path, title="quickstart", subtitle="completed", sections=[
        Section("Reward", [text("Mean reward of each step."), figure({"data": [...], "layout": {...}})]),
    ])

Figures are drawn by the browser, so they can be zoomed. Plotly's script is in the page once, compressed
(2 MB), and only if there is a figure. What is given as text is shown as it is, markup included. A page of
several sections has links to each of them on top.
"""

from __future__ import annotations

import base64
import gzip
import html
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from rlstack.files import written_at_once
from rlstack.telemetry.run_dir import to_json

Figure = Mapping[str, Any]  # Plotly's "data" and "layout"; a plotly Figure has to_dict()

FIGURES = "figures.js"  # needs Plotly's script in the page

_ASSETS = Path(__file__).with_name("page")


class Block(NamedTuple):
    """A piece of a section, ready for the page; the functions below make them."""

    markup: str
    scripts: frozenset[str] = frozenset()  # those of the folder `page` that it needs


class Section(NamedTuple):
    """A part of the page below a heading of its own."""

    title: str  # differs from those of the page's other sections
    blocks: Sequence[Block]

    @property
    def anchor(self) -> str:
        """What a link to it ends with."""
        return re.sub(r"\W+", "-", self.title.lower()).strip("-")


def text(paragraph: str) -> Block:
    """A paragraph, escaped."""
    return Block(f"<p>{html.escape(paragraph)}</p>")


def code(lines: str) -> Block:
    """Something to copy: settings, a command."""
    return Block(f"<pre>{html.escape(lines)}</pre>")


def facts(values: Mapping[str, str]) -> Block:
    """Key figures side by side, each below its label."""
    rows = (f"<div><dt>{html.escape(k)}</dt><dd>{html.escape(v)}</dd></div>" for k, v in values.items())
    return Block(f'<dl class="facts">{"".join(rows)}</dl>')


def table(header: Sequence[str], rows: Iterable[Sequence[str]], *, words: Iterable[int] = ()) -> Block:
    """The first column and those in `words` (from 0) are texts, to the left; the others are numbers."""
    textual = set(words)
    head = "".join(_cell("th", cell, i in textual) for i, cell in enumerate(header))
    lines = ("".join(_cell("td", cell, i in textual) for i, cell in enumerate(row)) for row in rows)
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return Block(
        f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def figure(plot: Figure, *, caption: str = "", height_px: int = 340) -> Block:
    """A Plotly figure; colours of background, text and grid are the page's, light or dark."""
    # "<" only ever stands inside a string of the JSON, where this escape means the same.
    data = to_json({"data": plot["data"], "layout": plot["layout"]}).replace("<", "\\u003c")
    below = f'<figcaption class="caption">{html.escape(caption)}</figcaption>' if caption else ""
    return Block(
        f'<figure><div class="plot" style="height: {height_px}px"><script type="application/json">{data}'
        f"</script></div>{below}</figure>",
        frozenset({FIGURES}),
    )


def side_by_side(blocks: Iterable[Block]) -> Block:
    """Figures in as many columns as the window has room for."""
    return _around('<div class="figures">', blocks, "</div>")


def folded(summary: str, blocks: Iterable[Block]) -> Block:
    """Shown only once `summary` is clicked. Not for figures, which need their size to be drawn."""
    return _around(f"<details><summary>{html.escape(summary)}</summary>", blocks, "</details>")


def write_page(path: Path, *, title: str, subtitle: str, sections: Sequence[Section]) -> None:
    """Write the page to `path`; replaces it.

    Raises:
        OSError: it cannot be written there.
    """
    with written_at_once(path) as file:
        file.write(render_page(title=title, subtitle=subtitle, sections=sections))


def render_page(*, title: str, subtitle: str, sections: Sequence[Section]) -> str:
    """The page as text."""
    scripts = {name for section in sections for block in section.blocks for name in block.scripts}
    body = "\n".join(
        f'<section id="{section.anchor}">\n<h2>{html.escape(section.title)}</h2>\n'
        + "\n".join(block.markup for block in section.blocks)
        + "\n</section>"
        for section in sections
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title>
<style>
{_asset("style.css")}</style>
</head>
<body>
<h1>{html.escape(title)}</h1>
<p class="subtitle">{html.escape(subtitle)}</p>
{_contents(sections) if len(sections) > 1 else ""}{body}
{_scripts(frozenset(scripts)) if scripts else ""}</body>
</html>
"""


def packed(content: str, *, name: str) -> str:
    """An element that holds `content` compressed; page/unpack.js gives it back.

    Half of a surrogate pair, which UTF-8 has no form for, becomes the escape that JSON has for it.
    """
    data = gzip.compress(content.encode(errors="backslashreplace"), mtime=0)
    letters = base64.b64encode(data).decode()
    return f'<script type="application/octet-stream" id="{name}">{letters}</script>'


def _contents(sections: Sequence[Section]) -> str:
    links = "".join(
        f'<li><a href="#{section.anchor}">{html.escape(section.title)}</a></li>' for section in sections
    )
    return f'<nav aria-label="Sections"><ul>{links}</ul></nav>\n'


def _cell(tag: str, cell: str, is_text: bool) -> str:
    mark = ' class="text"' if is_text else ""
    return f"<{tag}{mark}>{html.escape(cell)}</{tag}>"


def _around(before: str, blocks: Iterable[Block], after: str) -> Block:
    inside = list(blocks)
    markup = "".join(block.markup for block in inside)
    return Block(f"{before}{markup}{after}", frozenset().union(*(block.scripts for block in inside)))


def _asset(name: str) -> str:
    return (_ASSETS / name).read_text(encoding="utf-8")


def _scripts(names: frozenset[str]) -> str:
    code = "\n".join(_asset(name) for name in ("unpack.js", *sorted(names)))
    return f"{_plotly() if FIGURES in names else ''}<script>\n{code}</script>\n"


@cache
def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    return packed(get_plotlyjs(), name="plotly") + "\n"
