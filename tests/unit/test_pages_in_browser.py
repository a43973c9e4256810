"""The pages in a real browser: everything is drawn, nothing is wider than the window, nothing is fetched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rlstack.telemetry.axes import Axis
from rlstack.telemetry.comparison.page import write_comparison
from rlstack.telemetry.comparison.runs import read_runs
from tests.browser import Loaded, browser, load
from tests.played_run import HOSTILE, NUM_STEPS, make_run

DRAWN = """
await until(() => document.body.dataset.drawn !== undefined);
const scrolls = (each) => each.closest(".wide, nav, pre, .answer, svg");
const plots = [...document.querySelectorAll(".plot")];
const room = document.documentElement.clientWidth;
return {
  figures: plots.length,
  drawn: plots.filter((plot) => plot.querySelector("svg .cartesianlayer")).length,
  window: innerWidth,
  overhang: document.documentElement.scrollWidth - room,
  wide: [...document.querySelectorAll("body *")]
    .filter((each) => !scrolls(each.parentElement) && each.getBoundingClientRect().right > room + 1)
    .map((each) => each.outerHTML.slice(0, 200)),
  failures: document.body.innerText.match(/could not be .*/g) ?? [],
  links: [...document.querySelectorAll("nav a")].map((link) => document.querySelector(link.hash)?.tagName),
  fetched: performance.getEntriesByType("resource").map((entry) => entry.name),
};
"""
NARROW_PX = 500  # as narrow as a window gets
ROLLOUTS = """
await until(() => document.body.dataset.rollouts !== undefined);
const shown = () => [...document.querySelectorAll("#rollouts-groups li")].map((item) => ({
  group: item.closest("article").querySelector("h3").textContent,
  words: item.querySelector(".caption").textContent,
  text: item.querySelector(".answer").textContent,
}));
const results = [shown()];
for (const fragment of %s) {
  location.hash = fragment;
  await new Promise((done) => addEventListener("hashchange", () => setTimeout(done), { once: true }));
  results.push(shown());
}
const count = document.getElementById("rollouts-count").textContent;
return { results, count, hostile: document.body.dataset.hostile ?? null, images: document.images.length };
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    browser()
    return make_run(tmp_path_factory.mktemp("runs"), gpus=True)


@pytest.fixture(scope="module")
def comparison(run: Path) -> Path:
    other = make_run(run.parent, name="another")
    path = run.parent / "compare.html"
    write_comparison(read_runs([run, other]), path, axis=Axis.time, metrics=())
    return path


def check_drawn(loaded: Loaded, width_px: int) -> None:
    found: dict[str, Any] = loaded.answer
    assert found["figures"] == found["drawn"] > 3
    assert found["failures"] == []
    assert (found["window"], found["overhang"], found["wide"]) == (width_px, 0, [])
    assert found["links"] and set(found["links"]) == {"SECTION"}
    assert found["fetched"] == []
    assert loaded.console == []


@pytest.mark.parametrize("width_px", [1280, NARROW_PX])
def test_a_report_is_drawn_within_the_window(run: Path, tmp_path: Path, width_px: int) -> None:
    check_drawn(load(run / "report.html", DRAWN, tmp_path, width_px=width_px), width_px)


@pytest.mark.parametrize("width_px", [1280, NARROW_PX])
def test_a_comparison_is_drawn_within_the_window(comparison: Path, tmp_path: Path, width_px: int) -> None:
    check_drawn(load(comparison, DRAWN, tmp_path, width_px=width_px), width_px)


def test_the_address_says_which_rollouts_are_shown(run: Path, tmp_path: Path) -> None:
    fragments = [
        "#rollouts?task=sums&outcome=incorrect",
        "#rollouts?outcome=unscored",
        "#rollouts?outcome=cut-off&step=2-3",
        "#rollouts?q=IT+IS+9",
        "#rollouts?q=it+is+9&whole=1",
        "#rollouts?task=notes&sort=lowest&step=-1",
        "#rollouts?task=notes&sort=newest",
        "#rollouts?task=nowhere",
    ]
    first = "#rollouts?task=sums&outcome=correct&step=3"
    loaded = load(run / "report.html", ROLLOUTS % fragments, tmp_path, fragment=first)
    at_first, wrong, unscored, cut_off, search, whole, *_, newest, nowhere = loaded.answer["results"]
    assert [each["text"] for each in at_first] == ["it is 6"]
    assert at_first[0]["group"] == "step 3 · sums · row 3 · version 2 · mean reward 0.5 · 1 of 2 shown"
    assert [each["text"] for each in wrong] == ["it is 3", HOSTILE, "it is 9", "it is 12"]
    assert {each["words"].rpartition(" · ")[0] for each in wrong} == {"incorrect"}
    assert [each["words"] for each in unscored] == ["no reward: timeout · cut off · 30,000 tokens"]
    assert [each["group"].split(" · ")[0] for each in cut_off] == ["step 2", "step 3"]
    assert [each["text"] for each in search] == ["it is 9"]
    assert [each["text"] for each in whole] == ["it is 6", "it is 9"]
    assert [each["group"].split(" · ")[0] for each in newest[::2]] == ["step 4", "step 3", "step 2", "step 1"]
    assert len(nowhere) == 4 * NUM_STEPS  # a task that does not exist is no filter
    assert loaded.answer["hostile"] is None and loaded.answer["images"] == 0
    assert loaded.answer["count"] == f"{4 * NUM_STEPS} rollouts in {2 * NUM_STEPS} groups"
    assert loaded.console == []
