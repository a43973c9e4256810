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
from rlstack.orchestration.role_homes import ROOM_S, SILENT_S
from tests.markdown import blocks

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


def test_rays_limits_are_those_of_the_page() -> None:
    page = (ROOT / "docs" / "how-to" / "clusters.md").read_text()
    of_slurm = dict(re.findall(r"\bRAY_health_check_(\w+)=(\d+)", SCRIPT.read_text()))
    head = documents()[0]["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    of_kuberay = {each["name"].removeprefix("RAY_health_check_"): each["value"] for each in head["env"]}
    assert len(of_slurm) == 4
    for name, value in of_slurm.items():
        assert of_kuberay[name] == value
        assert re.search(rf"^\| `{name}`[^|]*\| \d+ \| {value} \|$", page, re.MULTILINE)
    threshold, period, timeout = (
        int(of_slurm[name]) for name in ("failure_threshold", "period_ms", "timeout_ms")
    )
    dead_s, silent_s = threshold * period // 1000, threshold * (period + timeout) // 1000
    assert f"{dead_s} s in the examples" in page and f"{silent_s} s in the examples" in page
    assert f"waited for, up to {SILENT_S:g} s" in page and f"has room for {ROOM_S:g} s" in page


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


def by_hand() -> list[str]:
    """The commands of the page on clusters for nodes of one's own, a text for each of its steps."""
    page = ROOT / "docs" / "how-to" / "clusters.md"
    above, _, _ = page.read_text().partition("\n## Nodes of your own\n")
    below, _, _ = page.read_text().partition("\n## Slurm\n")
    first, last = above.count("\n"), below.count("\n")
    return [b.text for b in blocks(page) if b.language == "bash" and first < b.line < last]


def test_the_commands_by_hand_are_those_of_the_examples() -> None:
    token, head, other, run, end = by_hand()
    for text in (token, head, other, run, end):
        subprocess.run(["bash", "-n"], input=text, text=True, check=True)
    array = re.compile(r"ports=\(([^)]*)\)")
    expected = [match.split() for match in array.findall(SCRIPT.read_text())]
    assert [match.split() for match in array.findall(head + other)] == expected * 2
    for flag in ("--include-dashboard=false", "--no-monitor"):
        assert flag in head and flag in SCRIPT.read_text() and flag not in other
    for text in (head, other):
        assert "umask 077\n" in text and "RAY_AUTH_MODE=token" in text and '--temp-dir="$TMPDIR/r"' in text
    assert "rlstack doctor " in run and "rlstack launch " in run
    assert end == 'ray stop\nrm -rf "$TMPDIR"\n'


def test_the_token_that_is_made_by_hand_is_its_owner_s_alone(tmp_path: Path) -> None:
    """With a stand-in for ssh, which puts the file into another home."""
    ssh = tmp_path / "ssh"
    ssh.write_text('#!/bin/bash\n[ "$1" = 10.0.0.2 ] && HOME=$HOME/other exec bash -c "umask 022; $2"\n')
    ssh.chmod(0o755)
    (tmp_path / "other").mkdir()
    environment = {"HOME": str(tmp_path), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    subprocess.run(["bash", "-e"], input=by_hand()[0], text=True, env=environment, check=True)
    files = [home / ".ray" / "auth_token" for home in (tmp_path, tmp_path / "other")]
    assert len({file.read_text() for file in files}) == 1 and len(files[0].read_text()) == 64
    assert [file.stat().st_mode & 0o777 for file in files] == [0o600, 0o600]
    assert [file.parent.stat().st_mode & 0o777 for file in files] == [0o700, 0o700]
