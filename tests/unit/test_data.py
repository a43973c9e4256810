from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from rlstack.config.schema import Task
from rlstack.data.datasets import ChatFramer, load_task
from rlstack.data.prompt_table import BATCH_ROWS
from rlstack.data.records import Prompt
from rlstack.errors import ConfigError

Load = Callable[..., list[Prompt]]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    """A token per character: its number of tokens is known."""
    vocabulary = {chr(code): code for code in range(128)} | {"<unk>": 128}
    characters = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    characters.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    wrapped = PreTrainedTokenizerFast(tokenizer_object=characters, unk_token="<unk>")
    wrapped.chat_template = (
        "{% for m in messages %}<{{ m.content }}>{% endfor %}{% if add_generation_prompt %}:{% endif %}"
    )
    return wrapped


@pytest.fixture
def load(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> Load:
    def load_content(content: bytes, *, max_prompt_tokens: int = 1000, **settings: str) -> list[Prompt]:
        path = tmp_path / "rows.jsonl"
        path.write_bytes(content)
        task = Task(**({"name": "sums", "path": str(path), "template": "chat"} | settings))
        return load_task(task, tokenizer, max_prompt_tokens=max_prompt_tokens, where="data.tasks[3]")

    return load_content


def test_rows_become_prompts_in_the_order_of_the_file(load: Load) -> None:
    first, second = load(b'{"problem": "1+1", "answer": "2"}\n\n{"problem": "x", "answer": 0.5, "id": 7}\r\n')
    assert first == Prompt(task="sums", row=0, problem="1+1", answer="2", token_ids=tuple(map(ord, "<1+1>:")))
    assert first.token_ids.dtype == np.int32
    assert first != replace(first, token_ids=tuple(map(ord, "<1+2>:"))) and first != second
    assert (second.row, second.problem, second.answer) == (2, "x", "0.5")


def test_rows_are_tokenised_in_batches(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes, tokenise = [], ChatFramer.tokenise

    def counting(self: ChatFramer, chats: list[Any]) -> list[np.ndarray]:
        sizes.append(len(chats))
        return tokenise(self, chats)

    monkeypatch.setattr(ChatFramer, "tokenise", counting)
    prompts = load(b'{"problem": "1+1", "answer": "2"}\n' * (BATCH_ROWS + 3))
    assert sizes == [BATCH_ROWS, 3] and [prompt.row for prompt in prompts] == list(range(BATCH_ROWS + 3))


def test_the_template_surrounds_the_problem(load: Load) -> None:
    (prompt,) = load(b'{"problem": "1+1", "answer": "2"}', template="math")
    text = "".join(map(chr, prompt.token_ids))
    assert text.startswith("<Given the following problem") and "\nProblem: 1+1\n" in text


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.text(min_size=1).filter(str.strip), min_size=1, max_size=5))
def test_any_text_survives_with_unicode_line_separators(load: Load, problems: list[str]) -> None:
    rows = [json.dumps({"problem": text, "answer": "1"}, ensure_ascii=False) for text in problems]
    prompts = load("\n".join(rows).encode())
    assert [prompt.problem for prompt in prompts] == problems


def test_fields_and_split_are_the_tasks_own(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for split in ("train", "test"):
        table = pa.Table.from_pylist([{"question": f"{split}?", "gold": 0.5, "problem": None}])
        pq.write_table(table, tmp_path / "data" / f"{split}-00000-of-00001.parquet")
    task = Task(name="q", path=str(tmp_path), split="test", problem_field="question", answer_field="gold")
    (prompt,) = load_task(task, tokenizer, max_prompt_tokens=1000, where="data.tasks[3]")
    assert (prompt.row, prompt.problem, prompt.answer) == (0, "test?", "0.5")
    task.problem_field = "problem"
    expected = r"path = '.*', row 0 \(from 0\): `problem` is null; .* data.tasks\[3\].problem_field"
    with pytest.raises(ConfigError, match=expected):
        load_task(task, tokenizer, max_prompt_tokens=1000, where="data.tasks[3]")


GOOD = b'{"problem": "1+1", "answer": "2"}\n'


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", ["data.tasks[3].path", "no rows"]),
        (b"\n \n", ["data.tasks[3].path", "no rows"]),
        (GOOD + b'{"problem": "x", "ans', ["rows.jsonl', line 2", "not JSON", '{"problem": "x", "ans']),
        (GOOD + b'["x"]', ["line 2", '["x"]', "not an object"]),
        (GOOD + b"\xff\xfe", ["line 2", "byte 0", "UTF-8"]),
        (GOOD + b'{"answer": "2"}', ["line 2", "`problem` is missing"]),
        (b'{"problem": " ", "answer": "2"}', ["line 1", '`problem` is " "']),
        (b'{"problem": 3, "answer": "2"}', ["line 1", "`problem` is 3"]),
        (b'{"problem": "x"}', ["line 1", "`answer` is missing"]),
        (b'{"problem": "x", "answer": true}', ["line 1", "`answer` is true"]),
        (b'{"problem": "x", "answer": ""}', ["line 1", '`answer` is ""']),
        (b"[" * 100_000, ["line 1", "not JSON"]),
        (GOOD + b'{"problem": ' + b'{"a":' * 100_000, ["line 2", "not JSON"]),
        (GOOD + b'{"problem": ' + b"[" * 200 + b"]" * 200 + b"}", ["line 2", "`problem` is a list"]),
        (GOOD + b'{"problem": "a\x00b", "answer": "2"}', ["line 2", "not JSON", "control character"]),
        (GOOD + b'{"problem": "a\x1bb", "answer": "2"}', ["line 2", "not JSON", "a\\x1bb"]),
        (
            GOOD + b'{"problem": "a\\ud800b", "answer": "2"}',
            ["line 2", "`problem` has \\ud800 at character 1"],
        ),
        (GOOD + b'{"problem": "a", "answer": "\\udfff"}', ["line 2", "`answer` has \\udfff at character 0"]),
        (GOOD + b'{"problem": "a", "problem": "b"}', ["line 2", "'problem' is there twice"]),
        (GOOD + b'{"problem": "a", "answer": 1e999}', ["line 2", "1e999 is too large"]),
        (GOOD + b'{"problem": "a", "answer": NaN}', ["line 2", "NaN is no number"]),
        (GOOD + b'{"problem": "a", "answer": ' + b"9" * 5000 + b"}", ["line 2", "not JSON", "4300"]),
        (GOOD + b'{"problem": "' + b"x" * (5 << 20) + b'"}', ["line 2", "longer than 4 MiB"]),
        (GOOD + b"\xed\xa0\x80", ["line 2", "byte 0", "UTF-8"]),
        (GOOD.decode().encode("utf-16"), ["line 1", "byte 0", "UTF-8"]),
        (b"PK\x03\x04\x00\x00", ["line 1", "not JSON"]),
    ],
)
def test_a_bad_file_is_one_clear_error(load: Load, content: bytes, expected: list[str]) -> None:
    with pytest.raises(ConfigError) as raised:
        load(content)
    assert all(part in str(raised.value) for part in expected), raised.value
    assert len(str(raised.value)) < 600


@pytest.mark.parametrize("mark", [b"\xef\xbb\xbf", b""])
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b""])
def test_a_byte_order_mark_and_the_ends_of_lines_make_no_difference(
    load: Load, mark: bytes, end: bytes
) -> None:
    (prompt,) = load(mark + GOOD.strip() + end)
    assert (prompt.problem, prompt.answer) == ("1+1", "2")


def test_control_characters_that_are_escaped_are_characters(load: Load) -> None:
    (prompt,) = load(b'{"problem": "a\\u0000\\u001b\\u202eb", "answer": "2"}')
    assert prompt.problem == "a\0\x1b\u202eb"


def test_a_line_without_end_is_refused_before_it_is_read(tmp_path: Path, load: Load) -> None:
    with (tmp_path / "huge.jsonl").open("wb") as file:
        file.truncate(1 << 40)  # a hole, which takes no room on the disk
    with pytest.raises(ConfigError, match=r"huge.jsonl', line 1: longer than 4 MiB"):
        load(GOOD, path=str(tmp_path / "huge.jsonl"))


def test_what_is_no_file_is_named(tmp_path: Path, load: Load) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "link").symlink_to("/dev/zero")
    for name, why in [
        ("pipe", "neither"),
        ("link", "neither"),
        ("loop", "no such file"),
        ("a\0b", "no such"),
        ("x" * 300, "no such file"),
        (".", "folder without a dataset"),
    ]:
        with pytest.raises(ConfigError, match=why):
            load(GOOD, path=str(tmp_path / name))


def test_a_long_prompt_is_named_with_its_length_and_the_limit(load: Load) -> None:
    content = GOOD + b'{"problem": "12345", "answer": "2"}'
    assert len(load(content, max_prompt_tokens=8)) == 2
    with pytest.raises(ConfigError, match=r"line 2: the prompt has 8 tokens, .* room for 7"):
        load(content, max_prompt_tokens=7)


@pytest.mark.parametrize("reward", ["athene", "my_rewards:brevity"])
def test_only_the_math_verifier_needs_an_answer(load: Load, reward: str) -> None:
    content = b'{"problem": "12"}'
    assert load(content, reward=reward)[0].answer is None
    with pytest.raises(ConfigError, match="`answer` is missing"):
        load(content, reward="math")


def test_a_missing_file_is_named(load: Load, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.tasks\[3\]\.path = '.*none.jsonl' cannot be read"):
        load(GOOD, path=str(tmp_path / "none.jsonl"))


def test_a_tokenizer_without_a_chat_template_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(GOOD)
    bare = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0}, unk_token="a")))
    with pytest.raises(ConfigError, match="chat_template"):
        load_task(Task(name="sums", path=str(path)), bare, max_prompt_tokens=9, where="data.tasks[0]")
