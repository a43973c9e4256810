"""The examples of configs/clusters: their syntax, that the run fits the nodes, what the script does."""

from __future__ import annotations

import os
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from rlstack.config.load import load_config
from rlstack.files import PRIVATE_PREFIX
from rlstack.orchestration.placement import Demand, Node, place

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "configs" / "clusters" / "slurm" / "rlstack.sbatch"
MANIFEST = ROOT / "configs" / "clusters" / "kuberay" / "rayjob.yaml"
EXAMPLE = ROOT / "configs" / "paper" / "math_s10.yaml"


def documents() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(MANIFEST.read_text()))


def fits(num_nodes: int, num_gpus: int) -> bool:
    """Whether the example fits so many nodes, and not one less."""
    demand = Demand.of(load_config(EXAMPLE))
    nodes = [Node(f"{i}", f"10.0.0.{i}", num_gpus, 64) for i in range(num_nodes)]
    return len(place(demand, nodes, use_gpus=True, ranks_per_core=1).bundles) == num_nodes


def test_the_job_of_kuberay_holds_the_example() -> None:
    job, policy = documents()
    cluster = job["spec"]["rayClusterSpec"]
    (group,) = cluster["workerGroupSpecs"]
    (worker,) = group["template"]["spec"]["containers"]
    assert fits(group["replicas"], int(worker["resources"]["limits"]["nvidia.com/gpu"]))
    assert job["spec"]["entrypoint"].startswith(f"rlstack launch /shared/{EXAMPLE.relative_to(ROOT)} ")
    assert cluster["authOptions"] == {"mode": "token"}
    pods = [cluster["headGroupSpec"]["template"], group["template"]]
    assert all(pod["metadata"]["labels"] == policy["spec"]["podSelector"]["matchLabels"] for pod in pods)


def test_the_slurm_script_holds_the_example() -> None:
    subprocess.run(["bash", "-n", SCRIPT], check=True)
    options = dict(re.findall(r"^#SBATCH --([\w-]+)=(\S+)$", SCRIPT.read_text(), re.MULTILINE))
    assert fits(int(options["nodes"]), int(options["gpus-per-node"]))
    assert f"rlstack.sbatch {EXAMPLE.relative_to(ROOT)} " in SCRIPT.read_text()


STANDS_FOR = {
    "scontrol": "printf 'n1\\nn2\\nn3\\n'",
    "hostname": "echo 10.0.0.1",
    "srun": 'while [ "$1" != bash ]; do export OPTIONS="$OPTIONS $1"; shift; done; exec "$@"',
    "ray": '[ "$1" = status ] && exit\necho "srun$OPTIONS ray $* token=$(wc -c <"$RAY_AUTH_TOKEN_PATH") '
    'mode=$(stat -c %a "$TMPDIR")" >>"$CALLS"; echo "$TMPDIR" >>"$CALLS.folders"; exec sleep 60',
    "python": "echo 3",
    "rlstack": 'for _ in $(seq 200); do [ "$(grep -c ^srun "$CALLS")" = 2 ] && break; sleep 0.05; done\n'
    'echo "rlstack $*" >>"$CALLS"; exit "$STATUS"',
}


@pytest.mark.parametrize("status", [0, 1])
def test_the_slurm_script_starts_ray_everywhere_and_ends_as_the_run(tmp_path: Path, status: int) -> None:
    """With stand-ins for what Slurm has; the token is gone at the end, and so are the nodes' processes."""
    for name, body in STANDS_FOR.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    calls = tmp_path / "calls"
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "CALLS": str(calls), "STATUS": str(status)}
    environment |= {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n[1-3]"}
    done = subprocess.run(
        ["bash", SCRIPT, "my.yaml", "run.name=x"], cwd=tmp_path, env=os.environ | environment, timeout=60
    )
    assert done.returncode == status
    *starts, run = calls.read_text().splitlines()
    assert run == (
        "rlstack launch my.yaml --address 10.0.0.1:6379 --resume cluster.port_range=[20000, 20063] run.name=x"
    )
    head, others = sorted(starts, key=lambda line: "--head" not in line)
    folders = (tmp_path / "calls.folders").read_text().split()
    assert len(set(folders)) == 2
    # Or `rlstack doctor` would take them for what a killed run has left, and print how to remove them.
    assert not any(Path(folder).name.startswith(PRIVATE_PREFIX) for folder in folders)
    for folder in folders:
        head, others = (line.replace(f"--temp-dir={folder}/r", "PRIVATE") for line in (head, others))
    assert "--nodelist=n1 ray start --block PRIVATE --head --node-ip-address=10.0.0.1 --port=6379" in head
    assert "--nodes=2 --ntasks=2 --exclude=n1 ray start --block PRIVATE --address=10.0.0.1:6379" in others
    assert all(line.endswith("token=64 mode=700") for line in starts)
    assert list(tmp_path.glob(".ray-token*")) == []
    deadline = time.monotonic() + 30
    while any(os.path.exists(folder) for folder in folders):
        assert time.monotonic() < deadline
        time.sleep(0.05)
