"""The pages in a real browser: everything is drawn, nothing is wider than the window, nothing is fetched."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rlstack.telemetry.axes import Axis
from rlstack.telemetry.comparison.page import write_comparison
from rlstack.telemetry.comparison.runs import read_runs
from rlstack.telemetry.html_page import write_page
from rlstack.telemetry.rollouts.section import rollouts_section
from rlstack.telemetry.run_record import RunRecord, Times
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
const unlabelled = [...document.querySelectorAll("input, select")].filter((each) => !each.labels.length);
const { hostile = null } = document.body.dataset;
return { results, count, unlabelled: unlabelled.length, hostile, images: document.images.length };
"""

MORE = """
await until(() => document.body.dataset.rollouts !== undefined);
const groups = () => document.querySelectorAll("article").length;
const more = document.getElementById("rollouts-more");
const counts = [groups()];
while (!more.hidden && counts.length < 9) { more.click(); counts.push(groups()); }
const controls = document.getElementById("rollouts-controls");
controls.elements.q.value = "long";
controls.elements.q.dispatchEvent(new Event("input", { bubbles: true }));
const length = () => document.querySelector("article li .answer").textContent.length;
const found = [groups(), location.hash, length()];
document.querySelector("article li button").click();
return { counts, found: [...found, length()] };
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
    assert loaded.answer["unlabelled"] == 0
    assert loaded.answer["count"] == f"{4 * NUM_STEPS} rollouts in {2 * NUM_STEPS} groups"
    assert loaded.console == []


def test_there_is_more_to_show_and_what_is_typed_is_in_the_address(tmp_path: Path) -> None:
    texts = [f"text {i}" for i in range(24)] + ["long " * 1000]
    rows = [
        {"step": 1, "task": "a", "row": i, "version": 0, "problem": "p", "answer": None, "text": text}
        | {"reward": 0.5, "outcome": "ok", "finished": True, "length_tokens": 3}
        for i, text in enumerate(texts)
    ]
    (tmp_path / "rollouts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = {"rollout": {"n": 1}}
    record = RunRecord(path=tmp_path, settings=settings, steps=[], summary=None, times=Times(), samples=[])
    section = rollouts_section(record)
    assert section is not None
    page = tmp_path / "page.html"
    write_page(page, title="a", subtitle="b", sections=[section])
    loaded = load(page, MORE, tmp_path)
    assert loaded.answer == {"counts": [10, 20, 25], "found": [1, "#rollouts?q=long", 2000, 5000]}
    assert loaded.console == []
