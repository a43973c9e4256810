"""Two nodes of Ray's, one of which has other weights and another source: each is named, with its file."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.nodes import ENVIRONMENT, ray_nodes
from tests.model_folders import SEED, edit

HEAD, OTHER = "127.0.0.2", "127.0.0.3"
# A path that leads somewhere else on each node, as that of a local disk does.
MODEL = "/proc/self/cwd/seed"
CHECK = f"""
import sys
from pathlib import Path
from rlstack.config.schema import Cluster
from rlstack.errors import ConfigError
from rlstack.orchestration.node_check import check_nodes
from rlstack.orchestration.nodes import all_nodes
from rlstack.orchestration.ray_session import start_ray

start_ray(Cluster(address=sys.argv[1]))
try:
    check_nodes(all_nodes(), models={{"policy.model": Path("{MODEL}")}}, run=None, timeout_s=120.0)
except ConfigError as error:
    print(error)
"""

pytestmark = pytest.mark.slow


def working_directory(folder: Path) -> Path:
    """A directory with the seed in it."""
    shutil.copytree(SEED, folder / "seed")
    return folder


def other_source(folder: Path) -> Path:
    """A path on which Python finds an rlstack that samples otherwise."""
    package = Path(__file__).parents[2] / "rlstack"
    shutil.copytree(package, folder / "rlstack", ignore=shutil.ignore_patterns("__pycache__"))
    engine = folder / "rlstack" / "rollout" / "engine.py"
    engine.write_text(engine.read_text().replace("temperature=temperature,", "temperature=temperature / 4,"))
    return folder


def test_a_node_with_other_weights_and_another_source_is_named_with_the_files(tmp_path: Path) -> None:
    here, there = (working_directory(tmp_path / name) for name in ("here", "there"))
    source = other_source(tmp_path / "source")
    with ray_nodes(
        [HEAD, OTHER],
        num_cpus=1,
        extra={OTHER: {"PYTHONPATH": str(source)}},
        working={HEAD: here, OTHER: there},
    ) as address:
        found = problems(address, here)
        assert [line.partition(": ")[0] for line in found] == [f"node {OTHER}"]
        assert f"rlstack in {source}/rlstack is of another source than the driver's in " in found[0]
        assert ": rlstack/rollout/engine.py (" in found[0]
        flip_a_bit(there / "seed" / "model.safetensors")
        edit(there / "seed" / "generation_config.json", eos_token_id=[3])
        found = problems(address, here)
    assert [line.partition(": ")[0] for line in found] == [f"node {OTHER}"] * 2
    said = f"policy.model = {MODEL}: the node's files differ from the driver's: model.safetensors (other con"
    assert said in found[1] and ", generation_config.json (" in found[1]


def problems(address: str, folder: Path) -> list[str]:
    """The lines with which a driver in `folder` is refused."""
    done = subprocess.run(
        [sys.executable, "-c", CHECK, address],
        cwd=folder,
        env=os.environ | ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [line for line in done.stdout.splitlines() if line.startswith("node")]


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1000] ^= 1
    path.write_bytes(content)
