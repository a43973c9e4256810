"""Whatever is in a dataset: prompts, or one error of ours."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from rlstack.config.schema import Task, Template
from rlstack.data.datasets import load_task, tokenise
from rlstack.data.records import Prompt
from rlstack.data.rows import count_rows, read_rows
from rlstack.data.templates import TEMPLATES, render
from rlstack.rewards.answer_file import Fields, answered_rows
from tests.fuzz.hostile import damaged, lines, outcome, texts, values

GOOD = [{"problem": f"{n}+{n}", "answer": 2 * n, "responses": ["1", "2"]} for n in range(3)]
JSONL = b"".join(json.dumps(row).encode() + b"\n" for row in GOOD)
rows = st.dictionaries(
    st.sampled_from(["problem", "answer", "responses"]) | texts, values | texts, max_size=4
)
contents = lines(rows) | damaged(JSONL) | st.binary(max_size=200)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    characters = Tokenizer(models.WordLevel({"<unk>": 0, "1": 1, "+": 2}, unk_token="<unk>"))
    characters.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    wrapped = PreTrainedTokenizerFast(tokenizer_object=characters, unk_token="<unk>")
    wrapped.chat_template = "{% for m in messages %}<{{ m.content }}>{% endfor %}"
    return wrapped


@pytest.fixture(scope="module")
def write(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, bytes], Path]:
    folder = tmp_path_factory.mktemp("rows")

    def write_file(name: str, content: bytes) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return write_file


@given(content=contents, reward=st.sampled_from(["math", "my_rewards:brevity"]))
def test_jsonl_is_prompts_or_refused(tokenizer, write, content: bytes, reward: str) -> None:
    task = Task(name="sums", path=str(write("rows.jsonl", content)), template=Template.chat, reward=reward)
    prompts = outcome(lambda: load_task(task, tokenizer, max_prompt_tokens=10_000, where="data.tasks[0]"))
    for prompt in prompts or []:
        assert isinstance(prompt, Prompt) and prompt.problem.strip() and len(prompt.token_ids)
        assert reward != "math" or (prompt.answer and prompt.answer.strip())


@given(content=contents)
def test_given_answers_are_questions_or_refused(write, content: bytes) -> None:
    path = write("answers.jsonl", content)
    for _, question in outcome(lambda: list(answered_rows(path, reward="math", fields=Fields()))) or []:
        assert all(isinstance(text, str) for text in (question.problem, question.answer, *question.responses))


def parquet() -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(GOOD), sink)
    return sink.getvalue().to_pybytes()


def stream() -> bytes:
    sink = pa.BufferOutputStream()
    table = pa.Table.from_pylist(GOOD)
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


@given(content=damaged(parquet()) | st.binary(max_size=200))
def test_parquet_is_rows_or_refused(write, content: bytes) -> None:
    path = write("rows.parquet", content)
    outcome(lambda: count_rows(path, where="path"))
    outcome(lambda: list(read_rows(path, where="path")))


@given(content=damaged(stream()) | st.binary(max_size=200))
def test_arrow_is_rows_or_refused(write, content: bytes) -> None:
    path = write("rows.arrow", content)
    outcome(lambda: count_rows(path, where="path"))
    outcome(lambda: list(read_rows(path, where="path")))


STATE = b'{"_data_files": [{"filename": "data-00000-of-00001.arrow"}], "_split": null}'
states = st.fixed_dictionaries(
    {"_data_files": values | st.lists(st.fixed_dictionaries({"filename": values}))}
)
dictionaries = st.fixed_dictionaries({"splits": values | st.lists(texts)})


@given(
    name=st.sampled_from(["state.json", "dataset_dict.json"]),
    content=damaged(STATE) | (states | dictionaries).map(lambda record: json.dumps(record).encode()),
    split=st.none() | st.just("train"),
)
def test_a_folder_is_rows_or_refused(tmp_path_factory, name: str, content: bytes, split: str | None) -> None:
    folder = tmp_path_factory.getbasetemp() / "folder"
    folder.mkdir(exist_ok=True)
    for other in folder.iterdir():
        other.unlink()
    (folder / name).write_bytes(content)
    assert outcome(lambda: list(read_rows(folder, where="path", split=split))) is None


@given(problem=texts.filter(str.isprintable) | st.text(), template=st.sampled_from(list(TEMPLATES.values())))
def test_any_problem_goes_through_template_and_chat_template(tokenizer, problem: str, template: str) -> None:
    (token_ids,) = tokenise(tokenizer, [render(template, problem)])
    assert len(token_ids) == len(template) - len("{PROBLEM}") + len(problem) + len("<>")
