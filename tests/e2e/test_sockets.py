"""Who could talk to a run: nobody from another machine, and nobody to its Ray without the token."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from ipaddress import ip_address
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = [
    "schedule.num_steps=200",
    "schedule.sync_interval=1",
    "batch.prompts_per_step=2",
    "evaluation.tasks=[]",
    "policy.pipeline_parallel=2",
    "run.name=test",
]
VISITOR = """
import sys
from ray._raylet import GcsClient
print(len(GcsClient(address=sys.argv[1]).get_all_node_info(timeout=20)))
"""

pytestmark = pytest.mark.slow


def test_a_run_listens_on_loopback_only_and_asks_for_a_token(tmp_path: Path) -> None:
    rlstack = Path(sys.executable).with_name("rlstack")
    command = [rlstack, "train", ROOT / "configs/quickstart.yaml", *SETTINGS, f"run.dir={tmp_path}"]
    metrics = tmp_path / "test" / "metrics.jsonl"
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: metrics.exists() and metrics.stat().st_size > 0, process)
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        sockets = [s for p in family if p.is_running() for s in p.net_connections("inet")]
        listening = [s.laddr for s in sockets if s.status == psutil.CONN_LISTEN]
        ports, hosts = {address.port for address in listening}, {address.ip for address in listening}
        assert len(ports) > 5  # Ray's, the stores' and gloo's
        assert {ip for ip in hosts if not ip_address(ip.removeprefix("::ffff:")).is_loopback} == set()
        with_token, without = (visitor(gcs_address(family), auth=mode) for mode in ("token", "disabled"))
        assert (with_token.returncode, with_token.stdout) == (0, "1\n"), with_token.stderr
        assert without.returncode != 0
        assert "authentication" in without.stderr.lower()
    finally:
        process.terminate()
        process.wait(60)


def gcs_address(family: list[psutil.Process]) -> str:
    """Where Ray's own directory of the cluster listens: its raylet has been told."""
    raylet = next(process for process in family if process.name() == "raylet")
    return next(a.partition("=")[2] for a in raylet.cmdline() if a.startswith("--gcs-address="))


def visitor(address: str, *, auth: str) -> subprocess.CompletedProcess[str]:
    """Who reaches Ray's port; without its token if `auth` is disabled."""
    environment = os.environ | {"RAY_AUTH_MODE": auth}
    return subprocess.run(
        [sys.executable, "-c", VISITOR, address],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


def wait_until(condition, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 200
    while not condition():
        assert process.poll() is None and time.monotonic() < deadline, "the run took no step"
        time.sleep(0.2)
