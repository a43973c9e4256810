"""Reading weights from a folder: slices, and clear errors."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from rlstack.errors import ConfigError
from rlstack.policy.hf_map import Part
from rlstack.policy.tensor_folder import TensorFolder


@pytest.fixture
def folder(tmp_path):
    save_file({"a": torch.arange(12.0).reshape(4, 3)}, tmp_path / "model-00001-of-00002.safetensors")
    save_file({"b": torch.arange(5.0)}, tmp_path / "model-00002-of-00002.safetensors")
    return tmp_path


def test_reads_whole_tensors_and_slices_of_either_dimension(folder) -> None:
    tensors, whole = TensorFolder(folder), torch.arange(12.0).reshape(4, 3)
    assert torch.equal(tensors.read(Part("b", (5,)), None), torch.arange(5.0))
    assert torch.equal(tensors.read(Part("a", (4, 3), cut=0), slice(1, 3)), whole[1:3])
    assert torch.equal(tensors.read(Part("a", (4, 3), cut=1), slice(2, 3)), whole[:, 2:])


@pytest.mark.parametrize(
    ("part", "message"), [(Part("c", (4,)), "lack c"), (Part("b", (6,)), r"b is \(5,\).*\(6,\)")]
)
def test_names_a_tensor_that_is_missing_or_of_another_shape(folder, part, message) -> None:
    with pytest.raises(ConfigError, match=message):
        TensorFolder(folder).read(part, None)


def test_names_a_folder_or_file_without_weights(tmp_path) -> None:
    with pytest.raises(ConfigError, match="has no"):
        TensorFolder(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"garbage")
    with pytest.raises(ConfigError, match="is not a safetensors file"):
        TensorFolder(tmp_path)
