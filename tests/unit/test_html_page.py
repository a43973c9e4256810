"""Pages for people: what is given as text stays text, and nothing has to be fetched."""

import base64
import gzip
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from rlstack.telemetry.html_page import (
    Section,
    code,
    facts,
    figure,
    folded,
    packed,
    render_page,
    side_by_side,
    table,
    text,
    write_page,
)

NASTY = "</script><b>&'\""
PLOT = {
    "data": [{"type": "scatter", "x": [1, 2], "y": [0.5, math.nan], "name": NASTY}],
    "layout": {"title": {"text": "Reward"}},
}


class Reader(HTMLParser):
    """What a browser would see: texts, scripts by type, addresses, tags left open."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.scripts: dict[str | None, list[str]] = {}
        self.addresses: list[str] = []
        self.anchors: list[str | None] = []  # of sections
        self.open: list[str] = []
        self._script: str | None = None
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.addresses += [str(given[name]) for name in ("src", "href") if name in given]
        if tag == "section":
            self.anchors.append(given["id"])
        if tag != "meta":
            self.open.append(tag)
        if tag == "script":
            self._script = given.get("type")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts.setdefault(self._script, []).append(data)
        elif data.strip():
            self.texts.append(data)


def page_with(*blocks, title="a run"):
    return Reader(render_page(title=title, subtitle="completed", sections=[Section("Part", list(blocks))]))


def test_what_is_given_as_text_is_shown_as_it_is() -> None:
    page = page_with(
        text(NASTY),
        facts({NASTY: "1"}),
        table(["role", NASTY], [["engine 0", NASTY]]),
        folded(NASTY, [code(NASTY)]),
        title=NASTY,
    )
    assert page.open == []
    assert page.texts.count(NASTY) == 8  # the title stands in the head and above the page
    assert "Part" in page.texts


def test_a_figure_is_plotlys_json_with_null_for_what_is_not_a_number() -> None:
    page = page_with(side_by_side([figure(PLOT, caption=NASTY), figure(PLOT)]))
    assert page.open == []
    drawn = [json.loads(script) for script in page.scripts["application/json"]]
    expected = {"data": [PLOT["data"][0] | {"y": [0.5, None]}], "layout": PLOT["layout"]}
    assert drawn == [expected, expected]


def test_the_page_brings_plotly_along_once_and_fetches_nothing() -> None:
    page = page_with(figure(PLOT), figure(PLOT))
    assert page.addresses == []
    (packed,) = page.scripts["application/octet-stream"]
    assert "plotly.js" in gzip.decompress(base64.b64decode(packed)).decode()[:200]


def test_a_page_of_several_sections_has_a_link_to_each() -> None:
    sections = [Section(title, [text("x")]) for title in ("Where the time went", "Settings", NASTY)]
    page = Reader(render_page(title="a", subtitle="b", sections=sections))
    assert page.addresses == ["#where-the-time-went", "#settings", "#script-b"]
    assert page.anchors == ["where-the-time-went", "settings", "script-b"]
    assert page_with(text("x")).addresses == []


def test_what_is_packed_comes_back_whatever_it_holds() -> None:
    content = f"{NASTY} ü🙂 " + json.dumps("\ud800", ensure_ascii=False)
    page = Reader(packed(content, name="data"))
    (letters,) = page.scripts["application/octet-stream"]
    found = gzip.decompress(base64.b64decode(letters)).decode()
    assert found.startswith(f"{NASTY} ü🙂 ")
    assert json.loads(found.rpartition(" ")[2]) == "\ud800"


def test_a_page_without_figures_has_no_scripts() -> None:
    assert page_with(text("nothing to draw")).scripts == {}


def test_the_columns_of_words_are_marked() -> None:
    page = render_page(
        title="a", subtitle="b", sections=[Section("c", [table(["x", "y", "z"], ["123"], words=[2])])]
    )
    assert re.findall(r"<t[hd](?: [^>]*)?>", page) == [
        "<th>",
        "<th>",
        '<th class="text">',
        "<td>",
        "<td>",
        '<td class="text">',
    ]


def test_a_page_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_page(path, title="a", subtitle="ü", sections=[])
    assert "ü" in path.read_text(encoding="utf-8")
    with pytest.raises(OSError):
        write_page(tmp_path / "none" / "report.html", title="a", subtitle="b", sections=[])
    assert list(tmp_path.iterdir()) == [path]
