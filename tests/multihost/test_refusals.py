"""What differs between hosts, or keeps them apart, is refused by name before a role starts."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.multihost.cluster import AUTH_TOKEN, HEAD, PORT_RANGE, QUICKSTART, launch, start_ray
from tests.multihost.hosts import ROOT, Hosts, address

pytestmark = [pytest.mark.multihost, pytest.mark.thorough]

SEED = ROOT / "configs" / "tiny" / "seed"
REWARD_MODEL = ROOT / "configs" / "tiny" / "reward_model"
MIXED = ROOT / "configs" / "tiny" / "recipes" / "mixed.yaml"
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


def test_other_weights_of_a_reward_model(hosts: Hosts, tmp_path: Path) -> None:
    with hosts.replaced(2, REWARD_MODEL / "model.safetensors", other_weights(REWARD_MODEL, tmp_path)):
        text = refused(hosts, tmp_path, config=MIXED)
    assert address(2) in text and "model.safetensors" in text


def test_another_source_of_the_package(hosts: Hosts, tmp_path: Path) -> None:
    source = ROOT / "rlstack" / "rollout" / "engine.py"
    with hosts.replaced(2, source, edited(source, tmp_path)):
        text = refused(hosts, tmp_path)
    assert address(2) in text and "rollout/engine.py" in text


@pytest.mark.parametrize(("driver", "other"), [(1, 2), (2, 1)])
def test_a_firewall_before_the_ports_of_the_run(
    hosts: Hosts, tmp_path: Path, driver: int, other: int
) -> None:
    """The driver's node listens on them; the policy and the engine are on one node each."""
    hosts.firewall(driver, PORT_RANGE)
    try:
        text = refused(hosts, tmp_path, host=driver)
    finally:
        hosts.firewall(driver, PORT_RANGE, closed=False)
    found = re.search(rf"node {address(other)} cannot connect to {address(driver)} port (\d+)", text)
    assert found is not None and PORT_RANGE[0] <= int(found[1]) <= PORT_RANGE[1], text
    assert "cluster.port_range" in text and "--resume" not in text


def test_a_token_that_is_wrong_or_missing_and_a_head_that_is_down(hosts: Hosts, tmp_path: Path) -> None:
    path = hosts.disk(2) / AUTH_TOKEN
    token = path.read_text()
    try:
        path.write_text("0" * 64)
        wrong = refused(hosts, tmp_path, host=2)
        path.unlink()
        missing = refused(hosts, tmp_path, host=2)
    finally:
        path.touch(mode=0o600)
        path.write_text(token)
    down = refused(hosts, tmp_path, "--address", HEAD.replace(address(1), address(9)), host=2)
    assert "the cluster has another token" in wrong and "no token" in missing
    assert f"nothing answers at {address(9)}:6379" in down
