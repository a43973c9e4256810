"""Variables of the environment, the network and Ray."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator

from rlstack.config.surroundings import SHORTER, surplus_socket_bytes
from rlstack.doctor.checks.config import refused
from rlstack.doctor.facts import Facts
from rlstack.doctor.finding import Verdict, note, ok, problem
from rlstack.preflight.machine import show_ports, too_few_ports

PLUGIN = "rlstack"  # the entry point that pyproject.toml has for vLLM
LOOPBACK = ("127.0.0.1", "localhost", "*")


def ray_address(facts: Facts) -> Iterator[Verdict]:
    """RAY_ADDRESS, by which other programs of Ray's choose a cluster."""
    if facts.environment.has_ray_address and not facts.joins_cluster:
        yield note(
            "RAY_ADDRESS is set; a run starts a Ray of its own all the same",
            "join that cluster with cluster.address=auto",
        )
    elif facts.environment.has_ray_address:
        yield ok("RAY_ADDRESS is set, and the run joins a cluster")


def proxies(facts: Facts) -> Iterator[Verdict]:
    """Proxies that would be asked for this machine's own addresses."""
    found = facts.environment
    if not found.proxies:
        return
    names = ", ".join(found.proxies)
    if any(entry in LOOPBACK for entry in found.no_proxy):
        yield ok(f"{names}; not for this machine")
    else:
        yield note(
            f"{names} without no_proxy: `rlstack judge` and `launch` cannot reach this machine's own ports",
            "export no_proxy=127.0.0.1,localhost",
        )


def vllm_variables(facts: Facts) -> Iterator[Verdict]:
    """VLLM_* variables, by which engines may do something else."""
    found = facts.environment
    if found.vllm_plugins is not None and PLUGIN not in found.vllm_plugins:
        yield problem(
            f"VLLM_PLUGINS leaves out {PLUGIN}, by which engines take new weights",
            "unset VLLM_PLUGINS, or add rlstack to it",
        )
    if found.vllm:
        yield note(f"{', '.join(found.vllm)}: may change what engines do", f"unset {' '.join(found.vllm)}")


def threads(facts: Facts) -> Iterator[Verdict]:
    """OMP_NUM_THREADS, against the cores; a run's processes on the CPU take one thread whatever it says."""
    value, num_cores = facts.environment.threads, facts.machine.num_cores
    if value is None:
        return
    if not facts.has_gpus:
        yield ok(f"OMP_NUM_THREADS={value}; a run's processes on the CPU take 1 thread each all the same")
        return
    if not value.isdecimal() or int(value) == 0:
        yield note(f"OMP_NUM_THREADS={value!r} is no number of threads", "unset OMP_NUM_THREADS")
    elif int(value) > num_cores:
        yield note(
            f"OMP_NUM_THREADS={value} in each process, on {num_cores} cores: they get into each other's way",
            "unset OMP_NUM_THREADS",
        )
    else:
        yield ok(f"OMP_NUM_THREADS={value}")


def loopback(facts: Facts) -> Iterator[Verdict]:
    """Whether this machine's own address can be listened on and reached."""
    if (error := facts.network.loopback_error) is not None:
        yield problem(f"127.0.0.1 cannot be listened on and reached: {error}", "ip link set lo up, as root")
    else:
        yield ok("127.0.0.1 can be listened on and reached")


def port_in_use(facts: Facts) -> Iterator[Verdict]:
    """Free ports in cluster.port_range, against what a run takes of them."""
    settings, busy = facts.settings, facts.network.busy_ports
    if settings is None or settings.ports is None:
        return
    if (found := too_few_ports(settings.ports, busy)) is not None:
        yield problem(*found)
        return
    num_free = settings.ports[1] - settings.ports[0] + 1 - len(busy)
    yield ok(
        f"{num_free} ports of cluster.port_range are free" + (f", {show_ports(busy)} in use" if busy else "")
    )


def ray_running(facts: Facts) -> Iterator[Verdict]:
    """Rays that run here already, or are left over."""
    found = facts.ray
    if found.registered is not None and not facts.joins_cluster:
        is_alive = any(process.driver is None for process in found.raylets)
        state = "runs here" if is_alive else "is registered here, and does not run"
        yield note(
            f"a cluster at {found.registered} {state}; a run starts a Ray of its own all the same",
            "ray stop, or join it with cluster.address=auto" if is_alive else "ray stop",
        )
        return
    for process in found.raylets:
        if process.driver is not None:
            whose = "" if process.own else ", of another user"
            yield note(f"process {process.driver} runs a Ray of its own{whose}; it shares cores and memory")
        elif not facts.joins_cluster:
            yield note(f"raylet {process.pid} is left over", f"kill {process.pid}" if process.own else "")
    if not found.raylets:
        yield ok("none")


def ray_leftovers(facts: Facts) -> Iterator[Verdict]:
    """Leftovers of killed runs in the folder for temporary files and in memory."""
    found = facts.ray.leftovers
    if found:
        yield note(f"{len(found)} of runs that were killed", shlex.join(["rm", "-r", *found]))
    else:
        yield ok("none")


def ray_token(facts: Facts) -> Iterator[Verdict]:
    """The token, without which every user who reaches Ray's ports can run code as this one."""
    wrong = facts.ray.mode_problem or (facts.ray.token_problem if facts.joins_cluster else None)
    if wrong is not None:
        yield refused(wrong)
    else:
        yield ok("this user's, for the cluster" if facts.joins_cluster else "each run makes one of its own")


def ray_folder(facts: Facts) -> Iterator[Verdict]:
    """The folder of Ray's sockets, whose paths have a limit."""
    folder = facts.ray.folder
    if (surplus := surplus_socket_bytes(folder)) > 0:
        yield problem(f"{folder} is {surplus} bytes too long for the sockets that Ray puts below it", SHORTER)
    else:
        yield ok(folder)


def ray_start(facts: Facts) -> Iterator[Verdict]:
    """How starting a Ray has ended, with --start."""
    started = facts.ray.started
    if started is None:
        return
    if started.error is not None:
        yield problem(
            f"a Ray was not started and ended: {started.error}",
            f"{sys.executable} -m rlstack.doctor.start_ray says more",
        )
    else:
        yield ok(f"one was started, called and ended in {started.seconds:.1f} s")
