"""How long a run takes to check its nodes, place its roles and start them, by the number of nodes.

Nodes of Ray's own cluster utilities on this machine, each at a loopback address. Node 127.0.1.2 imports
another source of rlstack, which the check has to find, by its name. One engine's place on each node; in the
place of an engine starts a process that does nothing.

    ray_s           of Ray, to start the nodes that were not there before
    reserve_s       wall clock, placement group included
    first_check_s   wall clock; Ray starts a process on each node, which imports rlstack
    check_s         wall clock of a check where the processes are there
    report_ms       the longest report of a node, inside its process
    compare_ms      the driver's comparison of all reports
    start_calls_s   the driver's calls that start the roles
    roles_ready_s   wall clock until all have answered; Ray starts their processes
    own_s           of rlstack: placement, driver's report, longest report, comparison and calls

    python benchmarks/node_check.py --nodes 8 16 32 64 --out benchmarks/results/node_check.json
"""

from __future__ import annotations

import argparse
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

from ray.cluster_utils import Cluster as RayCluster
from report import write

import rlstack
from rlstack.config.schema import Cluster, Rollout, RunConfig
from rlstack.errors import ConfigError
from rlstack.orchestration import node_check
from rlstack.orchestration.node_check import Report, check_nodes
from rlstack.orchestration.nodes import all_nodes
from rlstack.orchestration.placement import Demand, Node, place
from rlstack.orchestration.ray_session import end_ray, start_ray
from rlstack.orchestration.reservation import Reservation, reserve
from rlstack.orchestration.roles import Role, wait_for

MODEL = Path(__file__).parents[1] / "configs" / "tiny" / "seed"
MODELS = {"policy.model": MODEL}
LIMIT_S = 900.0
HEAD, FAULTY = "127.0.1.1", "127.0.1.2"


class Idle:
    """Stands for an engine; all that is measured comes before it loads anything."""

    def wait(self) -> None:
        pass


def main() -> None:
    arguments = parse()
    with tempfile.TemporaryDirectory(prefix="nodes-") as folder:
        write(list(rows(arguments.nodes, Path(folder))), arguments.out, title="check, placement, start")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, nargs="+", default=[4, 8, 16], help="ascending, 2 or more")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    return parser.parse_args()


def rows(numbers: list[int], folder: Path) -> Iterator[dict[str, Any]]:
    cluster, source = RayCluster(), other_source(folder / "source")
    joined = False
    try:
        for number in numbers:
            ray_s = add_nodes(cluster, number, source, folder)
            if not joined:
                start_ray(Cluster(address=cluster.address))
                joined = True
            yield {"nodes": number, "ray_s": ray_s} | row(number, folder)
    finally:
        end_ray([])
        cluster.shutdown()


def other_source(folder: Path) -> Path:
    package = Path(rlstack.__file__).parent
    shutil.copytree(package, folder / "rlstack", ignore=shutil.ignore_patterns("__pycache__"))
    with (folder / "rlstack" / "rollout" / "engine.py").open("a") as file:
        file.write("\n# another commit\n")
    return folder


def add_nodes(cluster: RayCluster, number: int, source: Path, folder: Path) -> float:
    """Have `number` nodes; the seconds that Ray takes."""
    started = time.monotonic()
    for i in range(len(cluster.list_all_nodes()), number):
        address = f"127.0.1.{i + 1}"
        cluster.add_node(
            wait=i == 0,
            num_cpus=1,
            node_ip_address=address,
            object_store_memory=80 << 20,
            include_dashboard=False,
            temp_dir=str(folder / "r"),
            env_vars={"PYTHONPATH": str(source)} if address == FAULTY else {},
        )
    cluster.wait_for_nodes(timeout=LIMIT_S)
    return time.monotonic() - started


def row(number: int, folder: Path) -> dict[str, Any]:
    config = RunConfig(
        rollout=Rollout(engines=number),
        cluster=Cluster(address="auto", placement_timeout_s=LIMIT_S),
    )
    demand = Demand.of(config, policy=False)
    with timed() as placed_s:
        place(demand, all_nodes(), use_gpus=False, ranks_per_core=1)
    with timed() as reserve_s:
        reservation = reserve(demand, config.cluster)
    try:
        nodes = [bundle.node for bundle in reservation.decision.bundles]
        first_s, check_s = (check(nodes) for _ in range(2))
        parts = parts_of_check(nodes)
        calls_s, ready_s = start(reservation, folder / str(number))
    finally:
        reservation.close()
    own_s = placed_s[0] + parts["driver_report_ms"] / 1e3 + calls_s
    own_s += (parts["report_ms"] + parts["compare_ms"]) / 1e3
    return {
        "reserve_s": reserve_s[0],
        "first_check_s": first_s,
        "check_s": check_s,
        **parts,
        "start_calls_s": calls_s,
        "roles_ready_s": ready_s,
        "own_s": own_s,
    }


def check(nodes: list[Node]) -> float:
    """The seconds of a check, which names the node with the fault and no other."""
    started = time.monotonic()
    try:
        check_nodes(nodes, models=MODELS, run=None, timeout_s=LIMIT_S)
    except ConfigError as error:
        took_s = time.monotonic() - started
        (line,) = str(error).splitlines()
        assert line.startswith(f"node {FAULTY}: rlstack in "), line
        assert "rlstack/rollout/engine.py (" in line, line
        return took_s
    raise AssertionError(f"the other source on {FAULTY} was not found")


def parts_of_check(nodes: list[Node]) -> dict[str, float]:
    """What of a check is not Ray's."""
    take = partial(node_check.report, MODELS, (), None)
    own, found = node_check._reports(nodes, partial(take_timed, take), LIMIT_S)
    reports: dict[str, Report | str] = {address: answer[0] for address, answer in found.items()}
    with timed() as compare_s:
        problems = node_check._by_nodes(node_check._problems(own[0], reports, MODELS, None))
    assert len(problems) == 1
    return {
        "driver_report_ms": 1e3 * own[1],
        "report_ms": 1e3 * max(answer[1] for answer in found.values()),
        "compare_ms": 1e3 * compare_s[0],
    }


def take_timed(take: Callable[[], Report]) -> tuple[Report, float]:
    started = time.perf_counter()
    report = take()
    return report, time.perf_counter() - started


def start(reservation: Reservation, logs: Path) -> tuple[float, float]:
    """The seconds of the calls that start a role on each node, and until all have answered."""
    logs.mkdir()
    started = time.monotonic()
    roles = [
        Role(f"engine {i}", log=logs / f"{i}.log", build=Idle, home=reservation.home(slot))
        for i, slot in enumerate(reservation.decision.engines)
    ]
    calls = [role.start(Idle.wait) for role in roles]
    calls_s = time.monotonic() - started
    wait_for(calls, timeout_s=LIMIT_S, doing="starting", setting="none")
    ready_s = time.monotonic() - started
    for role in roles:
        role.kill()
    return calls_s, ready_s


@contextmanager
def timed() -> Iterator[list[float]]:
    """A list that has the seconds inside once they have passed."""
    seconds: list[float] = []
    started = time.perf_counter()
    yield seconds
    seconds.append(time.perf_counter() - started)


if __name__ == "__main__":
    main()
