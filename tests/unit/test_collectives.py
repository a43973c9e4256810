"""A pickle of somebody who does not know the run's secret is not unpickled by torch's collectives."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed import distributed_c10d

from rlstack.collectives import SECRET, demand_proof, new_secret
from rlstack.errors import StrangerError

torchs: Any = distributed_c10d
DEVICE = torch.device("cpu")


class Touch:
    """Leaves a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self._path,))


@pytest.fixture
def proven(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process, as a rank."""
    for name in ("_pickler", "_unpickler"):
        monkeypatch.setattr(torchs, name, getattr(pickle, name[1:].title()))
    monkeypatch.setenv(SECRET, new_secret())
    demand_proof()


def sent(data: bytes) -> Any:
    """What a rank makes of `data` that has come from another."""
    return torchs._tensor_to_object(torch.frombuffer(bytearray(data), dtype=torch.uint8), len(data), None)


def of_rank(thing: object) -> bytes:
    """What a rank sends."""
    tensor, size = torchs._object_to_tensor(thing, DEVICE, None)
    assert tensor.numel() == size.item()
    return bytes(tensor.tolist())


@pytest.mark.usefixtures("proven")
def test_what_a_rank_sends_is_taken_and_with_any_bit_changed_it_is_not(tmp_path: Path) -> None:
    data = of_rank(Touch(tmp_path / "genuine"))
    sent(data)
    assert (tmp_path / "genuine").exists()
    data = of_rank(Touch(tmp_path / "changed"))
    for i in range(len(data)):
        with pytest.raises(StrangerError, match="was not unpickled: another process has joined the ranks"):
            sent(data[:i] + bytes([data[i] ^ 1]) + data[i + 1 :])
    assert not (tmp_path / "changed").exists()


@pytest.mark.usefixtures("proven")
@pytest.mark.parametrize("padding", [0, 1, 31, 32, 33])
def test_a_strangers_pickle_is_refused(tmp_path: Path, padding: int) -> None:
    with pytest.raises(StrangerError):
        sent(pickle.dumps(Touch(tmp_path / "marker")) + bytes(padding))
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize("data", [b"\x80", bytes(32)])
@pytest.mark.usefixtures("proven")
def test_less_than_a_proof_is_refused(data: bytes) -> None:
    with pytest.raises(StrangerError):
        sent(data)


@pytest.mark.usefixtures("proven")
def test_a_rank_of_another_run_is_a_stranger(monkeypatch: pytest.MonkeyPatch) -> None:
    other = of_rank("other")
    monkeypatch.setenv(SECRET, new_secret())
    demand_proof()
    with pytest.raises(StrangerError):
        sent(other)


@pytest.mark.usefixtures("proven")
def test_without_a_secret_no_process_joins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SECRET)
    with pytest.raises(RuntimeError, match="RLSTACK_GROUP_SECRET is not set"):
        demand_proof()


@pytest.mark.usefixtures("proven")
def test_a_torch_that_pickles_by_other_means_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def plainly(tensor: torch.Tensor, size: int, group: object) -> object:
        return pickle.load(io.BytesIO(bytes(tensor.tolist())))

    monkeypatch.setattr(torchs, "_tensor_to_object", plainly)
    with pytest.raises(RuntimeError, match="plainly does not use _unpickler"):
        demand_proof()


def test_all_that_torchs_collectives_pickle_goes_through_what_is_replaced() -> None:
    lines = Path(torchs.__file__).read_text(encoding="utf-8").splitlines()
    code = [line.strip() for line in lines if "pickle" in line.partition("#")[0] and "``pickle``" not in line]
    named = [line for line in code if "pickle." in line or line.startswith(("import", "from"))]
    assert named == ["import pickle", "_pickler = pickle.Pickler", "_unpickler = pickle.Unpickler"]
