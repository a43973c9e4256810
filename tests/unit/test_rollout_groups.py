"""The rollouts in a report: whole groups of evenly chosen steps, within the room of a page."""

from __future__ import annotations

import base64
import gzip
import json
import re
from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlstack.config.schema import Telemetry
from rlstack.data.records import Outcome, Prompt, Rollout, RolloutGroup, Score, ScoredGroup
from rlstack.data.samples import sample_rows
from rlstack.errors import ConfigError
from rlstack.telemetry.rollouts import groups as module
from rlstack.telemetry.rollouts.groups import (
    MAX_CHARACTERS,
    Group,
    Selection,
    choose,
    evenly,
    select,
    with_verdicts,
)

N = 2


def row(step: int, *, line: int = 0, reward: float | None = 1.0, text: str = "a", **others: Any) -> dict:
    given = {
        "step": step,
        "task": "sums",
        "row": line,
        "version": step - 1,
        "problem": "1 + 1",
        "answer": "2",
    }
    scored = {"text": text, "reward": reward, "outcome": "ok", "finished": True, "length_tokens": len(text)}
    return given | scored | others


def write(folder: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    path = folder / "rollouts.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in rows))
    return path


def found(path: Path) -> Selection:
    selection = select(path, n=N, name="data")
    assert selection is not None
    return selection


def in_page(selection: Selection) -> dict[str, Any]:
    """As the page's script reads it."""
    match = re.fullmatch(r'<script type="[^"]*" id="data">(.*)</script>', selection.markup)
    assert match is not None
    return json.loads(gzip.decompress(base64.b64decode(match[1])))


def test_the_rows_that_a_run_writes_are_its_groups(tmp_path: Path) -> None:
    prompt = Prompt(task="sums", row=7, problem="1 + 1", token_ids=(1, 2), answer="2")
    rollouts = tuple(
        Rollout(token_ids=(1,) * k, generator_logprobs=(0.0,) * k, text="x" * k, finished=k < 2, version=8)
        for k in (1, 2)
    )
    scores = (Score(reward=1.0), Score(reward=None, outcome=Outcome.timeout))
    scored = ScoredGroup(group=RolloutGroup(step=8, prompt=prompt, rollouts=rollouts), scores=scores)
    selection = found(write(tmp_path, sample_rows([scored], Telemetry())))
    (group,) = in_page(selection)["groups"]
    first, second = group.pop("rollouts")
    assert group == {"step": 9, "task": "sums", "row": 7, "version": 8, "problem": "1 + 1", "answer": "2"}
    assert first == {"text": "x", "reward": 1.0, "outcome": "ok", "finished": True, "length": 1}
    assert second == {"text": "xx", "reward": None, "outcome": "timeout", "finished": False, "length": 2}


def test_a_prompt_that_a_step_has_twice_is_two_groups(tmp_path: Path) -> None:
    selection = found(write(tmp_path, [row(1)] * 4 + [row(1, line=1)] * 2))
    assert [len(group["rollouts"]) for group in selection.groups] == [2, 2, 2]
    assert (selection.shown_rollouts, selection.num_rollouts, selection.num_steps) == (6, 6, 1)


def test_rows_of_a_run_from_before_there_were_answers_are_shown(tmp_path: Path) -> None:
    old = row(1)
    del old["answer"]
    assert in_page(found(write(tmp_path, [old])))["groups"][0]["answer"] is None


def test_what_a_page_has_no_room_for_are_steps_between_the_first_and_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = (str(hash((i, j))) for i in range(50) for j in range(2))  # hard to compress
    path = write(tmp_path, [row(step, text=next(texts)) for step in range(1, 51) for _ in range(2)])
    whole = found(path)
    assert whole.shown_steps == 50
    monkeypatch.setattr(module, "MAX_PACKED_BYTES", len(whole.markup) // 2)
    part = found(path)
    shown = [group["step"] for group in part.groups]
    assert len(part.markup) <= len(whole.markup) // 2
    assert 10 < len(shown) < 30
    assert (shown[0], shown[-1], part.num_steps, part.num_rollouts) == (1, 50, 50, 100)
    gaps = {b - a for a, b in pairwise(shown)}
    assert max(gaps) - min(gaps) <= 1
    monkeypatch.setattr(module, "MAX_PACKED_BYTES", 10)
    assert [group["step"] for group in found(path).groups] == [1, 50]  # whatever they take


def test_a_file_too_long_to_unpack_is_shown_in_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, [row(step) for step in range(1, 41)])
    monkeypatch.setattr(module, "MAX_FILE_BYTES", path.stat().st_size // 4 + 1)
    assert found(path).shown_steps == 10


def test_a_text_that_is_very_long_is_cut_and_says_so(tmp_path: Path) -> None:
    text = "x" * (MAX_CHARACTERS + 1234)
    (group,) = in_page(found(write(tmp_path, [row(1, text=text, problem=text)])))["groups"]
    for shown in (group["problem"], group["rollouts"][0]["text"]):
        assert shown == "x" * MAX_CHARACTERS + "\n[1,234 more characters are in rollouts.jsonl]"


def test_there_is_nothing_to_show_without_rollouts(tmp_path: Path) -> None:
    assert select(tmp_path / "rollouts.jsonl", n=N, name="data") is None
    assert select(write(tmp_path, []), n=N, name="data") is None


@pytest.mark.parametrize("missing", ["step", "task", "row", "version", "problem", "text", "reward"])
def test_what_is_no_rollout_is_refused_by_name(tmp_path: Path, missing: str) -> None:
    damaged = row(1)
    del damaged[missing]
    with pytest.raises(ConfigError, match=f"rollouts.jsonl: the '{missing}' of a row"):
        select(write(tmp_path, [row(1), damaged]), n=N, name="data")


def group(step: int, *, task: str = "sums", rewards: Iterable[float | None] = ()) -> Group:
    return {"step": step, "task": task, "rollouts": [{"reward": reward} for reward in rewards]}


@given(st.lists(st.integers(1, 9), min_size=1, max_size=60).map(sorted), st.integers(2, 9), st.integers(1, 9))
def test_what_is_chosen_is_of_the_first_and_the_last_step_too(
    steps: list[int], num_steps: int, per_step: int
) -> None:
    groups = [group(step) for step in steps]
    chosen = [each["step"] for each in choose(groups, num_steps=num_steps, per_step=per_step)]
    assert (chosen[0], chosen[-1]) == (steps[0], steps[-1])
    assert len(set(chosen)) == min(num_steps, len(set(steps)))
    assert all(chosen.count(step) == min(per_step, steps.count(step)) for step in chosen)


@given(st.integers(1, 50), st.integers(2, 60))
def test_what_is_chosen_evenly_has_both_ends(length: int, count: int) -> None:
    chosen = evenly(range(length), count)
    assert len(set(chosen)) == len(chosen) == min(length, count)
    assert (chosen[0], chosen[-1]) == (0, length - 1)


def test_a_task_has_verdicts_if_its_rewards_are_all_1_or_0() -> None:
    groups = [
        group(1, task="sums", rewards=[1.0, 0.0, None]),
        group(1, task="notes", rewards=[1.0, 0.5]),
        group(1, task="late", rewards=[None]),
    ]
    assert with_verdicts(groups) == ["sums"]
