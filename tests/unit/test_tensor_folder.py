"""Reading weights from a folder: slices, and clear errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from rlstack.config.weight_index import INDEX, weight_files
from rlstack.errors import ConfigError
from rlstack.model.weight_names import Part
from rlstack.policy import tensor_folder
from rlstack.policy.tensor_folder import TensorFolder

FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
A, B = Part("a", (4, 3), cut=0), Part("b", (5,))


@pytest.fixture(params=[True, False], ids=["index", "no_index"])
def folder(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    save_file({"a": torch.arange(12.0).reshape(4, 3)}, tmp_path / FIRST)
    save_file({"b": torch.arange(5.0)}, tmp_path / SECOND)
    if request.param:
        write_index(tmp_path, {"a": FIRST, "b": SECOND})
    return tmp_path


def write_index(folder: Path, places: dict[str, str]) -> None:
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": 68}, "weight_map": places}))


def test_reads_whole_tensors_and_slices_of_either_dimension(folder: Path) -> None:
    tensors, whole = TensorFolder(folder), torch.arange(12.0).reshape(4, 3)
    assert torch.equal(tensors.read(B, None), torch.arange(5.0))
    assert torch.equal(tensors.read(A, slice(1, 3)), whole[1:3])
    assert torch.equal(tensors.read(Part("a", (4, 3), cut=1), slice(2, 3)), whole[:, 2:])


def test_maps_only_the_files_of_the_tensors_that_are_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    safe_open = tensor_folder.safe_open

    def open_noting(path: Path, **options: Any) -> Any:
        opened.append(path.name)
        return safe_open(path, **options)

    monkeypatch.setattr(tensor_folder, "safe_open", open_noting)
    tensors = TensorFolder(folder)
    tensors.read(B, None)
    tensors.read(B, None)
    assert opened == [SECOND]


@pytest.mark.parametrize(
    ("part", "message"), [(Part("c", (4,)), "lack c"), (Part("b", (6,)), r"b is \(5,\).*\(6,\)")]
)
def test_names_a_tensor_that_is_missing_or_of_another_shape(folder: Path, part: Part, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TensorFolder(folder).read(part, None)


def test_a_file_beside_the_indexed_ones_is_left_alone(folder: Path) -> None:
    write_index(folder, {"a": FIRST, "b": SECOND})
    (folder / "consolidated.safetensors").write_bytes(b"another form of the same weights")
    assert weight_files(folder) == {"a": folder / FIRST, "b": folder / SECOND}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "has no .*; give the folder of a whole model"),
        (["pytorch_model.bin"], "pytorch_model.bin, a pickle.*; convert it"),
        (["pytorch_model-00001-of-00002.bin", "pytorch_model.bin.index.json"], "00001.*convert it"),
        (["model.safetensors"], "is not a safetensors file .*; get it again"),
    ],
)
def test_says_what_to_do_about_a_folder_without_weights(
    tmp_path: Path, names: list[str], message: str
) -> None:
    for name in names:
        (tmp_path / name).write_bytes(b"garbage, more than eight bytes of it")
    with pytest.raises(ConfigError, match=message):
        TensorFolder(tmp_path)


def test_says_that_an_adapter_is_no_model(tmp_path: Path) -> None:
    save_file({"base.q_proj.lora_A.weight": torch.ones(2, 2)}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(ConfigError, match="adapter's weights only; merge it"):
        weight_files(tmp_path)


def test_names_the_files_of_the_index_that_are_missing(folder: Path) -> None:
    write_index(folder, {"a": FIRST, "b": SECOND})
    (folder / SECOND).unlink()
    with pytest.raises(ConfigError, match=f"1 of the 2 files .* missing, {SECOND} first; get them again"):
        TensorFolder(folder)


@pytest.mark.parametrize("num_bytes", [-1, -20, 9, 4, 0])
def test_names_a_file_that_was_cut_off(folder: Path, num_bytes: int) -> None:
    content = (folder / FIRST).read_bytes()
    (folder / FIRST).write_bytes(content[:num_bytes])
    with pytest.raises(ConfigError, match=f"{FIRST}: .*; get it again"):
        TensorFolder(folder)


@pytest.mark.parametrize(
    "index",
    [
        "",
        "{}",
        '{"weight_map": ["a"]}',
        '{"weight_map": {"a": "../model.safetensors"}}',
        '{"weight_map": {"a": 3}}',
        f'{{"weight_map": {{"b": "{FIRST}"}}}}',
    ],
)
def test_refuses_an_index_that_is_none_or_is_wrong(folder: Path, index: str) -> None:
    (folder / INDEX).write_text(index)
    with pytest.raises(ConfigError, match=f"{INDEX}.*again"):
        TensorFolder(folder)
