"""A Ray cluster on hosts of namespaces, and runs on it."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.multihost.documented import starting
from tests.multihost.hosts import ROOT, SHARED, Hosts, address

QUICKSTART = ROOT / "configs" / "quickstart.yaml"
HEAD = f"{address(1)}:6379"
PORT_RANGE = (20000, 20063)
AUTH_TOKEN = "home/.ray/auth_token"  # on the disk of a host
TOKEN = {"RAY_AUTH_MODE": "token"}
STARTS = 3  # of a node: Ray itself waits for 30 s and no longer, which a busy machine may exceed
SHORT = (
    "schedule.num_steps=6",
    "batch.prompts_per_step=4",
    "evaluation.num_prompts=4",
    "evaluation.n=2",
    "schedule.sync_interval=2",
    "schedule.evaluate_every=4",
)


def start_ray(hosts: Hosts, *, num_cpus: Sequence[int], env: Mapping[str, str] | None = None) -> None:
    """Start Ray on all hosts, the first of which is the head.

    num_cpus: of each, as Ray gets to know it; env: for Ray, and so for the roles.
    """
    status, text = hosts.on(1, "umask 077; ray get-auth-token --generate", env=TOKEN)
    assert status == 0, text
    token = (hosts.disk(1) / AUTH_TOKEN).read_bytes()
    for host, cpus in zip(hosts.all, num_cpus, strict=True):
        path = hosts.disk(host) / AUTH_TOKEN
        path.touch(mode=0o600)
        path.write_bytes(token)
        start_node(hosts, host, num_cpus=cpus, env=env)


def start_node(hosts: Hosts, host: int, *, num_cpus: int, env: Mapping[str, str] | None = None) -> None:
    """Start Ray on one host by the commands of docs/how-to/clusters.md, on so many cores."""
    command = starting(host, f"--num-cpus={num_cpus} --object-store-memory={100 << 20}")
    for _ in range(STARTS):
        status, text = hosts.on(host, command, env=env)
        if status == 0 or "timed out during startup" not in text:
            break
        hosts.on(host, "ray stop --force")  # of this host: it sees no other processes
    assert status == 0, text


def launch(
    hosts: Hosts,
    *arguments: str,
    log: Path,
    host: int = 1,
    command: Sequence[str] = ("rlstack",),
    config: Path = QUICKSTART,
    settings: Sequence[str] = (*SHORT, "run.name=run"),
    env: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Start a run of the quickstart's task below /tmp/shared, driven from `host`.

    arguments: put over `settings`.
    """
    where = [f"run.dir={SHARED}", f"cluster.port_range={[*PORT_RANGE]}"]
    words = [*command, "launch", str(config), "--address", HEAD, *settings, *where, *arguments]
    return hosts.start(host, words, log=log, env={**TOKEN, **(env or {})})
