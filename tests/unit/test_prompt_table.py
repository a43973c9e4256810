"""The prompts of a task as a table, and on disk for later starts."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from rlstack.config.load import load_config
from rlstack.config.schema import Task, Template
from rlstack.data import prompt_table, tokenizer
from rlstack.data.load import load_prompts
from rlstack.data.prompt_table import (
    BATCH_ROWS,
    PromptTable,
    is_kept,
    load_table,
    longest_tokens,
    record_batch,
    table_key,
)
from rlstack.data.records import Prompt

ROOT = Path(__file__).parents[2]
SEED = ROOT / "configs" / "tiny" / "seed"
TASK = Task(name="sums", path="rows.jsonl")
PROMPTS = [
    Prompt(
        task="sums",
        row=2 * i,
        problem=f"{i} \u00fc",
        token_ids=np.arange(i % 5),
        answer=None if i % 3 else str(i),
    )
    for i in range(2 * BATCH_ROWS + 7)
]


def batches() -> Iterator[pa.RecordBatch]:
    for first in range(0, len(PROMPTS), BATCH_ROWS):
        of_batch = PROMPTS[first : first + BATCH_ROWS]
        yield record_batch(
            rows=[prompt.row for prompt in of_batch],
            problems=[prompt.problem for prompt in of_batch],
            answers=[prompt.answer for prompt in of_batch],
            token_ids=[prompt.token_ids for prompt in of_batch],
        )


def never() -> Iterator[pa.RecordBatch]:
    raise AssertionError("it has been kept")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "rlstack" / "prompts"


def test_a_table_is_the_sequence_of_its_prompts() -> None:
    table = PromptTable("sums", batches())
    assert list(table) == PROMPTS and table[-1] == PROMPTS[-1] and table[250:260] == PROMPTS[250:260]
    assert list(table.num_tokens) == [len(prompt.token_ids) for prompt in PROMPTS]
    assert list(table.largest_tokens) == [len(prompt.token_ids) - 1 for prompt in PROMPTS]
    assert longest_tokens(table) == longest_tokens(PROMPTS) == 4
    some = table.only(np.flatnonzero(table.num_tokens > 2))
    assert list(some) == [prompt for prompt in PROMPTS if len(prompt.token_ids) > 2]
    assert len(some.largest_tokens) == len(some) and min(some.num_tokens) == 3
    with pytest.raises(IndexError):
        table[len(PROMPTS)]


def test_a_table_holds_tokens_and_texts_alone() -> None:
    """1,200 tokens and 5,000 characters: no more than the bytes of both, whatever Python's objects take."""
    before = pa.total_allocated_bytes()
    batch = record_batch(
        rows=range(100),
        problems=["x" * 5000] * 100,
        answers=["1"] * 100,
        token_ids=[np.zeros(1200, np.int32)] * 100,
    )
    assert batch.nbytes / 100 < 4 * 1200 + 5000 + 50
    assert pa.total_allocated_bytes() - before < 1.5 * batch.nbytes


def test_what_was_kept_is_not_made_again(folder: Path) -> None:
    first, second = load_table(TASK, "k", batches), load_table(replace(TASK, name="a"), "k", never)
    assert list(first) == PROMPTS and list(second) == [replace(prompt, task="a") for prompt in PROMPTS]
    (file,) = folder.iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700 and file.stat().st_mode & 0o777 == 0o600
    assert is_kept("k") and not is_kept("l") and not is_kept(None)
    assert pa.ipc.open_file(pa.memory_map(str(file))).num_record_batches == 3


@pytest.mark.parametrize("place", [0, 0.5, 1])
@pytest.mark.parametrize("cut", [False, True])
def test_a_damaged_file_is_made_again(place: float, cut: bool, folder: Path) -> None:
    load_table(TASK, "k", batches)
    (file,) = folder.iterdir()
    content = bytearray(file.read_bytes())
    at = int(place * (len(content) - 1))
    content[at] ^= 1
    file.write_bytes(content[:at] if cut else content)
    assert list(load_table(TASK, "k", batches)) == PROMPTS
    assert list(load_table(TASK, "k", never)) == PROMPTS


def make_writable_for_all(file: Path) -> None:
    file.chmod(0o666)


def give_to_another_key(file: Path) -> None:
    file.rename(file.with_name(file.name.replace("other.", "k.")))


def open_the_folder(file: Path) -> None:
    file.parent.chmod(0o777)


@pytest.mark.parametrize("change", [make_writable_for_all, give_to_another_key, open_the_folder])
def test_a_file_that_may_be_anothers_is_not_read(change: Callable[[Path], None], folder: Path) -> None:
    wrong = record_batch(rows=[0], problems=["wrong"], answers=[None], token_ids=[np.zeros(1, np.int32)])
    load_table(TASK, "other" if change is give_to_another_key else "k", lambda: iter([wrong]))
    (file,) = folder.iterdir()
    change(file)
    assert list(load_table(TASK, "k", batches)) == PROMPTS


def test_a_disk_that_takes_nothing_costs_the_next_start_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert list(load_table(TASK, "k", batches)) == PROMPTS
    assert list(folder.iterdir()) == []


def test_what_was_used_longest_ago_is_removed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompt_table, "MAX_FILES", 2)
    for age, key in enumerate("abc"):
        load_table(TASK, key, batches)
        if key == "a":
            (folder / ".killed.part").write_text("")
            os.utime(folder / ".killed.part", (0, 0))
        for file in folder.glob(f"{key}.*"):
            os.utime(file, (age, age))
        if key == "b":
            load_table(TASK, "a", never)
    assert [key for key in "abc" if is_kept(key)] == ["a", "c"]
    assert not list(folder.glob(".*"))
    monkeypatch.setattr(prompt_table, "MAX_BYTES", 1)
    load_table(TASK, "d", batches)
    assert [key for key in "abcd" if is_kept(key)] == ["d"]


def test_the_key_is_of_all_that_decides(tmp_path: Path) -> None:
    model, rows = tmp_path / "model", tmp_path / "rows.jsonl"
    shutil.copytree(SEED, model)
    rows.write_text('{"problem": "1", "answer": "1"}\n')
    task = Task(name="a", path=str(rows))

    def key(**changed: object) -> str | None:
        return table_key(replace(task, **changed), model, where="data.tasks[0]")

    first = key()
    copied = shutil.copytree(tmp_path, tmp_path.with_name("copied")) / "rows.jsonl"
    assert first == key(name="b", weight=2.0) == key(path=str(copied))
    others = [
        key(problem_field="question"),
        key(answer_field="gold"),
        key(template=Template.chat),
        key(chat_template_kwargs={"enable_thinking": False}),
        key(reward="plugins.mine:reward"),
    ]
    (model / "model.safetensors").write_bytes(b"other weights")
    assert key() == first
    (model / "chat_template.jinja").write_text("{{ messages }}")
    others.append(key())
    rows.write_text('{"problem": "2", "answer": "1"}\n')
    others.append(key())
    assert len({first, *others}) == 1 + len(others) and None not in others
    rows.unlink()
    assert key() is None


def test_a_second_start_loads_no_tokenizer(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config(ROOT / "configs" / "quickstart.yaml", [f"policy.model={SEED}"])
    sampler, held_out = load_prompts(config)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the prompts have been kept")

    monkeypatch.setattr(tokenizer, "load_tokenizer", refuse)
    again, held_out_again = load_prompts(config)
    assert held_out and held_out == held_out_again
    assert sampler.take(3, 32) == again.take(3, 32) and sampler.max_tokens == again.max_tokens
