"""Whatever has become of a model's weights and their index: files by tensor, or one error of ours."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlstack.config.weight_index import INDEX, weight_files
from rlstack.policy.weight_files import header_of
from tests.fuzz.hostile import damaged, outcome, texts, values

FILE = "model.safetensors"
WHOLE = header_of([("a", (2,), "float32"), ("b", (3,), "bfloat16")]) + bytes(14)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("model")


def with_length(header: bytes) -> bytes:
    return len(header).to_bytes(8, "little") + header


headers = values.map(lambda value: with_length(json.dumps(value).encode()))


@given(content=damaged(WHOLE) | headers | st.binary(max_size=80))
def test_a_file_of_weights_is_read_or_refused(folder: Path, content: bytes) -> None:
    (folder / INDEX).unlink(missing_ok=True)
    (folder / FILE).write_bytes(content)
    found = outcome(lambda: weight_files(folder))
    assert found is None or set(found.values()) == {folder / FILE}


places = st.dictionaries(st.sampled_from(["a", "b"]) | texts, texts | st.just(FILE) | values, max_size=3)
indexes = places.map(lambda found: json.dumps({"weight_map": found}).encode())


@given(content=indexes | damaged(b'{"weight_map": {"a": "model.safetensors"}}') | st.binary(max_size=80))
def test_an_index_is_read_or_refused(folder: Path, content: bytes) -> None:
    (folder / FILE).write_bytes(WHOLE)
    (folder / INDEX).write_bytes(content)
    found = outcome(lambda: weight_files(folder))
    assert not found or set(found.values()) == {folder / FILE}
