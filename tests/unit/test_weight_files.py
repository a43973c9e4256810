"""Weights written in place into files of a bounded size, as safetensors and transformers read them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from rlstack.config.weight_index import INDEX
from rlstack.policy.weight_files import Spec, WeightFiles, plan_files

TENSORS = {
    "a": torch.randn(4, 6),
    "b": torch.randn(5).to(torch.bfloat16),
    "c": torch.randn(3, 7).to(torch.bfloat16),
    "d": torch.randn(2, 2).to(torch.float16),
}
SPECS: list[Spec] = [
    (name, tuple(tensor.shape), str(tensor.dtype).removeprefix("torch.")) for name, tensor in TENSORS.items()
]


@pytest.mark.parametrize(
    ("max_file_bytes", "expected"),
    [
        (10**9, [["a", "b", "c", "d"]]),
        (96 + 10, [["a", "b"], ["c", "d"]]),
        (60, [["a"], ["b", "c", "d"]]),  # a has 96 bytes
        (1, [["a"], ["b"], ["c"], ["d"]]),
    ],
)
def test_a_file_holds_what_fits_or_one_tensor(max_file_bytes: int, expected: list[list[str]]) -> None:
    files = plan_files(SPECS, max_file_bytes=max_file_bytes)
    assert [[name for name, _, _ in file.specs] for file in files] == expected
    names = [file.name for file in files]
    if len(files) == 1:
        assert names == ["model.safetensors"]
    else:
        total = len(files)
        assert names == [f"model-{i:05d}-of-{total:05d}.safetensors" for i in range(1, total + 1)]


@pytest.mark.parametrize("max_file_bytes", [10**9, 60])
def test_safetensors_reads_the_very_bytes_whatever_the_order(tmp_path: Path, max_file_bytes: int) -> None:
    files = WeightFiles(tmp_path, SPECS, max_file_bytes=max_file_bytes)
    for name in ("c", "a", "d", "b"):
        files.write(name, TENSORS[name])
    files.close()
    found = {
        name: tensor for path in tmp_path.glob("*.safetensors") for name, tensor in load_file(path).items()
    }
    assert found.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert found[name].dtype is tensor.dtype
        assert torch.equal(found[name], tensor)
    for path in tmp_path.glob("*.safetensors"):
        with safe_open(path, framework="pt") as opened:
            assert opened.metadata() == {"format": "pt"}


def test_the_index_says_where_each_tensor_is(tmp_path: Path) -> None:
    files = WeightFiles(tmp_path, SPECS, max_file_bytes=60)
    for name, tensor in TENSORS.items():
        files.write(name, tensor)
    files.close()
    index = json.loads((tmp_path / INDEX).read_text())
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in TENSORS.values())
    for name, file in index["weight_map"].items():
        assert name in load_file(tmp_path / file)
    assert index["weight_map"].keys() == TENSORS.keys()


def test_what_is_not_a_plain_block_of_the_planned_dtype_is_made_one(tmp_path: Path) -> None:
    files = WeightFiles(tmp_path, [("a", (6, 4), "bfloat16")])
    files.write("a", torch.nn.Parameter(TENSORS["a"].clone()).T)
    files.close()
    assert torch.equal(load_file(tmp_path / "model.safetensors")["a"], TENSORS["a"].T.to(torch.bfloat16))


def test_refuses_what_was_not_planned_and_to_end_without_what_was(tmp_path: Path) -> None:
    files = WeightFiles(tmp_path, SPECS)
    with pytest.raises(ValueError, match=r"a is \(6, 4\), but was planned as \(4, 6\)"):
        files.write("a", TENSORS["a"].T)
    files.write("b", TENSORS["b"])
    with pytest.raises(ValueError, match="b is not among"):
        files.write("b", TENSORS["b"])
    with pytest.raises(ValueError, match="c first"):
        files.close()
