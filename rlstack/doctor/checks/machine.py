"""The host and what is installed outside Python."""

from __future__ import annotations

import datetime
from collections.abc import Iterator

from rlstack.doctor.facts import OBJECT_STORE_GIB, Facts, Packages, Version
from rlstack.doctor.finding import Verdict, note, ok, problem

# What requirements.lock and requirements-gpu.lock are for; the tests run on the first.
CPU_PYTHON: Version = (3, 11)
GPU_PYTHON: Version = (3, 12)
LEAST_MEMORY_GIB, GOOD_MEMORY_GIB = 4.0, 8.0  # the quickstart was seen to take 3.6, and 400 threads
SHARED_MEMORY_SPARE_GIB = 0.25  # beside Ray's object store: gloo, vLLM's ranks, torch's queues
LEAST_OPEN_FILES, GOOD_OPEN_FILES = 1024, 4096  # below the second Ray warns
LEAST_PROCESSES = 1024


def platform(facts: Facts) -> Iterator[Verdict]:
    """Linux on x86-64, for which the engines have wheels."""
    machine = facts.machine
    found = ", ".join(filter(None, (f"{machine.system} {machine.architecture}", machine.name)))
    if (machine.system, machine.architecture) == ("Linux", "x86_64"):
        yield ok(found)
    else:
        yield problem(f"{found}: vLLM's wheels are for Linux on x86-64", "use such a machine, or a container")


def python(facts: Facts) -> Iterator[Verdict]:
    """The version of Python against what the packages and their wheels are for."""
    machine = facts.machine
    version = ".".join(map(str, machine.python))
    found = f"{version}, {machine.executable}"
    if facts.extra == "cpu" and machine.python[:2] != CPU_PYTHON:
        yield problem(
            f"{found}: the packages for machines without GPUs are pinned for 3.11",
            "make setup PYTHON=python3.11",
        )
    elif not _is_accepted(version, facts.packages):
        yield problem(
            f"{found}: {facts.packages.requires_python} is needed", "make setup-gpu GPU_PYTHON=python3.12"
        )
    elif facts.extra == "gpu" and machine.python[:2] != GPU_PYTHON:
        yield note(
            f"{found}: the packages for GPUs are locked for 3.12, and these may be others",
            "make setup-gpu GPU_PYTHON=python3.12",
        )
    else:
        yield ok(found)


def _is_accepted(version: str, packages: Packages) -> bool:
    """By the requires-python of rlstack."""
    if packages.requires_python is None or not packages.has_packaging:
        return True
    from packaging.specifiers import SpecifierSet

    return SpecifierSet(packages.requires_python).contains(version)


def cores(facts: Facts) -> Iterator[Verdict]:
    """The processors that this process may use."""
    machine = facts.machine
    quota = machine.core_quota
    if quota is not None and quota < machine.num_cores:
        yield note(
            f"{machine.num_cores}, of which the container may use {quota:g} at a time; runs count all",
            f"start it with --cpuset-cpus=0-{max(0, int(quota) - 1)} instead of a quota",
        )
    else:
        yield ok(f"{machine.num_cores}")


def memory(facts: Facts) -> Iterator[Verdict]:
    """Free memory, within a container's limit, against what a small run takes."""
    total, free = facts.machine.memory_gib, facts.machine.memory_free_gib
    if total is None or free is None:
        return
    found = f"{free:.1f} GiB free of {total:.1f}"
    if free < LEAST_MEMORY_GIB:
        yield problem(
            f"{found}: the smallest runs take nearly {LEAST_MEMORY_GIB:g}",
            "end what takes it (ps aux --sort=-rss | head), or raise the container's limit",
        )
    elif free < GOOD_MEMORY_GIB:
        yield note(f"{found}: enough for small models on one engine")
    else:
        yield ok(found)


def shared_memory(facts: Facts) -> Iterator[Verdict]:
    """Room in /dev/shm, against Ray's object store."""
    total, free = facts.machine.shared_memory_gib, facts.machine.shared_memory_free_gib
    store = facts.settings.object_store_gib if facts.settings is not None else OBJECT_STORE_GIB
    needed = store + SHARED_MEMORY_SPARE_GIB
    if total is None or free is None:
        yield problem("/dev/shm is not there", "mount -t tmpfs -o size=2g tmpfs /dev/shm")
    elif free < needed:
        remedy = (
            "remove what is left over there (ls -l /dev/shm)"
            if total >= needed
            else f"start the container with --shm-size={_gib_up(needed)}g"
        )
        yield problem(f"/dev/shm has {_size(free)} free of {_size(total)}; {_size(needed)} is needed", remedy)
    else:
        yield ok(f"{free:.1f} GiB free of {total:.1f} in /dev/shm")


def open_files(facts: Facts) -> Iterator[Verdict]:
    """The limit on open files, against what a run opens."""
    limit = facts.machine.open_files
    if limit is None or limit >= GOOD_OPEN_FILES:
        yield ok("no limit" if limit is None else f"up to {limit}")
        return
    found = f"at most {limit}; Ray asks for {GOOD_OPEN_FILES} or more"
    remedy = "ulimit -Hn 65536 as root, or `* hard nofile 65536` in /etc/security/limits.conf"
    yield problem(found, remedy) if limit < LEAST_OPEN_FILES else note(found, remedy)


def process_limit(facts: Facts) -> Iterator[Verdict]:
    """The limit on processes and threads, against what a run starts."""
    limit = facts.machine.processes
    if limit is not None and limit < LEAST_PROCESSES:
        yield problem(
            f"at most {limit} processes and threads; a small run has several hundred",
            "ulimit -u 65536, or start the container with --pids-limit=-1",
        )
    else:
        yield ok("no limit" if limit is None else f"up to {limit}, threads among them")


def c_compiler(facts: Facts) -> Iterator[Verdict]:
    """A compiler that works, which torch and Triton call."""
    machine = facts.machine
    if machine.compiler is None:
        yield problem("no cc, gcc or clang on the PATH", "apt install gcc libc6-dev")
    elif machine.compiler_error is not None:
        yield problem(
            f"{machine.compiler} does not compile a program of one line: {machine.compiler_error}",
            "apt install gcc libc6-dev",
        )
    elif facts.has_gpus and not machine.has_python_headers:
        major, minor, _ = machine.python
        yield problem(
            f"{machine.compiler}, but Python.h is not there, which Triton compiles against",
            f"apt install python{major}.{minor}-dev",
        )
    else:
        yield ok(machine.compiler)


def libnuma(facts: Facts) -> Iterator[Verdict]:
    """The library that vLLM's CPU build links to."""
    if facts.extra != "cpu":  # only vLLM's CPU build links to it
        return
    if facts.machine.libnuma_error is not None:
        yield problem(f"does not load: {facts.machine.libnuma_error}", "apt install --reinstall libnuma1")
    else:
        yield ok("loads")


def clock(facts: Facts) -> Iterator[Verdict]:
    """A date that cannot be right, with which certificates and files look expired."""
    machine = facts.machine
    now = _date(machine.now_s)
    if machine.installed_s is not None and machine.now_s < machine.installed_s:
        yield problem(
            f"{now}, which is before rlstack was installed ({_date(machine.installed_s)})",
            "set it: timedatectl set-ntp true",
        )
    else:
        yield ok(now)


def _date(time_s: float) -> str:
    return datetime.datetime.fromtimestamp(time_s, datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")


def _size(gib: float) -> str:
    return f"{gib:.1f} GiB" if gib >= 1 else f"{gib * 1024:.0f} MiB"


def _gib_up(gib: float) -> int:
    return max(2, int(gib) + 1)
