"""The host, its limits and the container's, and what is installed outside Python."""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import shutil
import subprocess
import sys
import sysconfig
import time
from importlib import metadata
from pathlib import Path

from rlstack.doctor.facts import Machine
from rlstack.doctor.probes import cgroup

GIB = 2**30
SHARED_MEMORY = Path("/dev/shm")
PROGRAM = "#include <stdio.h>\nint main(void) { return 0; }\n"
COMPILE_S = 20.0


def look() -> Machine:
    """Processor, memory, limits, compiler and libraries of this machine."""
    memory, free = _memory()
    shared, shared_free = _shared_memory()
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    return Machine(
        system=platform.system(),
        architecture=platform.machine(),
        name=_name(),
        python=sys.version_info[:3],
        executable=_executable(),
        has_python_headers=Path(sysconfig.get_paths()["include"], "Python.h").is_file(),
        num_cores=len(os.sched_getaffinity(0)),
        core_quota=cgroup.core_quota(),
        memory_gib=memory,
        memory_free_gib=free,
        shared_memory_gib=shared,
        shared_memory_free_gib=shared_free,
        open_files=_limit(resource.RLIMIT_NOFILE),
        processes=_processes(),
        compiler=compiler,
        compiler_error=_compiler_error(compiler) if compiler else None,
        libnuma_error=_libnuma_error(),
        now_s=time.time(),
        installed_s=_installed_s(),
    )


def _executable() -> str:
    """As short as it can be given from the working directory."""
    here = os.getcwd()
    is_below = here != os.sep and Path(sys.executable).is_relative_to(here)
    return os.path.relpath(sys.executable) if is_below else sys.executable


def _name() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "")
    except OSError:
        return ""


def _compiler_error(compiler: str) -> str | None:
    """What a compiler without its headers or its linker says."""
    command = [compiler, "-x", "c", "-", "-o", os.devnull]
    try:
        done = subprocess.run(command, input=PROGRAM, capture_output=True, text=True, timeout=COMPILE_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    said = done.stderr.strip().splitlines()
    return (said[0] if said else f"exit status {done.returncode}") if done.returncode else None


def _libnuma_error() -> str | None:
    try:
        ctypes.CDLL("libnuma.so.1")
    except OSError as error:
        return str(error)
    return None


def _installed_s() -> float | None:
    """Of the distribution's metadata, which is written last."""
    try:
        file = metadata.distribution("rlstack-megatron").locate_file("")
        return max(path.stat().st_mtime for path in Path(str(file)).glob("rlstack_megatron-*.dist-info"))
    except (metadata.PackageNotFoundError, OSError, ValueError):
        return None


def _shared_memory() -> tuple[float | None, float | None]:
    try:
        usage = shutil.disk_usage(SHARED_MEMORY)
    except OSError:
        return None, None
    return usage.total / GIB, usage.free / GIB


def _limit(kind: int) -> int | None:
    hard = resource.getrlimit(kind)[1]
    return None if hard == resource.RLIM_INFINITY else hard


def _processes() -> int | None:
    """A user's limit does not hold for root, the container's does."""
    limits = [_limit(resource.RLIMIT_NPROC) if os.geteuid() else None, cgroup.process_limit()]
    return min((limit for limit in limits if limit is not None), default=None)


def _memory() -> tuple[float | None, float | None]:
    """GiB in all and free; the container's where it is held to less than the machine has."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None, None
    kib = {line.split(":")[0]: int(line.split()[1]) for line in lines if len(line.split()) > 1}
    total, free = kib["MemTotal"] / 2**20, kib["MemAvailable"] / 2**20
    limit, used = cgroup.memory()
    if limit is None or limit / GIB >= total:
        return total, free
    return limit / GIB, min(free, max(0, limit - used) / GIB)
