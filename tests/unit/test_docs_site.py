"""The site is built without a warning, loads nothing from other hosts, and its figure is the schedule's."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.markdown import ROOT

LOADS = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "srcset", "object": "data"}


class Loaded(HTMLParser):
    """What a browser gets for a page without being asked: scripts, styles, images."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        address = dict(attrs).get(LOADS.get(tag, ""))
        if address and dict(attrs).get("rel") not in ("canonical", "next", "prev"):
            self.addresses.append(address)


def loaded(page: str) -> list[str]:
    parser = Loaded()
    parser.feed(page)
    return parser.addresses


def test_what_a_page_loads_is_found() -> None:
    page = '<a href="https://a"></a><script src="https://b"></script><link rel="stylesheet" href="c.css">'
    assert loaded(page) == ["https://b", "c.css"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if importlib.util.find_spec("material") is None:
        pytest.skip("MkDocs Material is not installed; make docs does that")
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ, timeout=120)
    assert done.returncode == 0, done.stderr
    return out


def test_every_page_is_there_with_a_title_and_text(site: Path) -> None:
    for page in (ROOT / "docs").rglob("*.md"):
        built = site / page.relative_to(ROOT / "docs").with_suffix(".html")
        assert "<h1" in built.read_text(encoding="utf-8"), page


def test_nothing_is_loaded_from_other_hosts(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    foreign = {
        (page.relative_to(site), address)
        for page in pages
        for address in loaded(page.read_text(encoding="utf-8"))
        if address.startswith(("http:", "https:", "//"))
    }
    assert len(pages) > 20
    assert foreign == set()
    styles = [path.read_text(encoding="utf-8") for path in site.rglob("*.css")]
    assert not any("url(http" in style or "@import" in style for style in styles)


def test_the_figure_is_that_of_the_schedule() -> None:
    spec = importlib.util.spec_from_file_location("regimes_figure", ROOT / "tools" / "regimes_figure.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    assert (ROOT / "docs" / "images" / "regimes.svg").read_text(encoding="utf-8") == module.figure()
