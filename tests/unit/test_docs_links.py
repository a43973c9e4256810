"""Links, anchors and paths in the project's Markdown lead somewhere, in the repository and in the site."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.markdown import PAGES, ROOT, anchors, code, links
from tests.unit.test_imports import ROOMS

by_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
SOURCES = "rlstack|kernels|configs|docs|tests|tools|benchmarks"
PATH = re.compile(rf"({SOURCES})/[\w./+*-]*\w/?")


def faults_of_link(page: Path, target: str) -> str | None:
    """What is wrong with the relative link `target` of `page`; None: nothing."""
    path, _, anchor = target.partition("#")
    leads_to = (page.parent / path).resolve() if path else page
    if not leads_to.exists():
        return "leads nowhere"
    if not leads_to.is_relative_to(ROOT):
        return "leads out of the repository"
    if anchor and leads_to.suffix == ".md" and anchor not in anchors(leads_to):
        return f"{leads_to.name} has no heading of this name"
    return None


@by_page
def test_every_link_leads_somewhere(page: Path) -> None:
    relative = [(line, target) for line, target in links(page) if not re.match(r"\w+:", target)]
    wrong = [(line, target, faults_of_link(page, target)) for line, target in relative]
    assert [fault for fault in wrong if fault[2]] == []


@by_page
def test_every_path_is_there(page: Path) -> None:
    paths = [(line, text) for line, text in code(page) if PATH.fullmatch(text)]
    assert [(line, text) for line, text in paths if not any(ROOT.glob(text.rstrip("/")))] == []


@pytest.mark.parametrize(
    ("target", "fault"),
    [
        ("README.md", None),
        ("docs/nowhere.md", "leads nowhere"),
        ("..", "leads out of the repository"),
        ("SECURITY.md#a-cluster", None),
        ("SECURITY.md#a-clutter", "SECURITY.md has no heading of this name"),
    ],
)
def test_a_link_is_judged(target: str, fault: str | None) -> None:
    assert faults_of_link(ROOT / "README.md", target) == fault


def in_nav(nav: Any) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    items = nav.values() if isinstance(nav, dict) else nav
    return [page for item in items for page in in_nav(item)]


def test_the_site_has_every_page_once() -> None:
    settings = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    pages = [str(page.relative_to(ROOT / "docs")) for page in PAGES if page.is_relative_to(ROOT / "docs")]
    assert sorted(in_nav(settings["nav"])) == sorted(
        [*pages, "repository/CONTRIBUTING.md", "repository/SECURITY.md"]
    )


def test_the_architecture_has_every_room_in_the_order_of_imports() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    listed = re.findall(r"\.\./rlstack/(\w+)", text[text.index("## The rooms") : text.index("## What holds")])
    assert listed == list(ROOMS)
