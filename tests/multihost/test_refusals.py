"""What differs between hosts, or keeps them apart, is refused by name before a role starts."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.multihost.cluster import QUICKSTART, launch, start_ray
from tests.multihost.hosts import ROOT, Hosts, address

pytestmark = [pytest.mark.multihost, pytest.mark.thorough]

SEED = ROOT / "configs" / "tiny" / "seed"
NAMES = (f"run-{i}" for i in count())


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    """Two hosts with Ray on them, the second of which will have the engine."""
    with Hosts(2, shared=tmp_path_factory.mktemp("shared")) as hosts:
        start_ray(hosts, num_cpus=[2, 2])
        yield hosts


def refused(hosts: Hosts, folder: Path, *arguments: str, host: int = 1, config: Path = QUICKSTART) -> str:
    """What a run that is refused says."""
    name = next(NAMES)
    log = folder / f"{name}.log"
    driver = launch(hosts, f"run.name={name}", *arguments, log=log, host=host, config=config)
    status, text = driver.wait(300), log.read_text()
    assert status == 2, text
    assert hosts.on(1, f"ls /tmp/shared/{name}/logs/*-0.log")[0] != 0, "a role was started"
    return text


def other_weights(model: Path, folder: Path) -> Path:
    """Those of a fine-tune of the same base."""
    torch.manual_seed(0)
    tensors = load_file(model / "model.safetensors")
    save_file(
        {name: tensor * (1 + 0.05 * torch.randn_like(tensor)) for name, tensor in tensors.items()},
        folder / "model.safetensors",
    )
    return folder / "model.safetensors"


def edited(file: Path, folder: Path) -> Path:
    """A copy with a space more at its end, which changes no meaning."""
    copied = Path(shutil.copy(file, folder))
    copied.write_bytes(file.read_bytes() + b" \n")
    return copied


@pytest.mark.parametrize("name", ["tokenizer.json", "generation_config.json", "config.json"])
def test_another_file_of_the_model(hosts: Hosts, tmp_path: Path, name: str) -> None:
    with hosts.replaced(2, SEED / name, edited(SEED / name, tmp_path)):
        text = refused(hosts, tmp_path)
    assert address(2) in text and name in text


def test_other_weights(hosts: Hosts, tmp_path: Path) -> None:
    with hosts.replaced(2, SEED / "model.safetensors", other_weights(SEED, tmp_path)):
        text = refused(hosts, tmp_path)
    assert address(2) in text and "model.safetensors" in text
