"""What a container is held to: control groups of version 2, or of version 1."""

from __future__ import annotations

from pathlib import Path

PROCESS, ROOT = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
UNLIMITED_BYTES = 2**60  # version 1 says "no limit" as a number about this large


def memory() -> tuple[int | None, int]:
    """The limit and what is used of it, in bytes."""
    limit = _number("memory", "memory.max", "memory.limit_in_bytes")
    used = _number("memory", "memory.current", "memory.usage_in_bytes")
    return (None if limit is None or limit > UNLIMITED_BYTES else limit), used or 0


def core_quota() -> float | None:
    """Cores' worth of time that all of its processes get together."""
    if text := _read("cpu", "cpu.max"):
        quota, period = text.split()
        return None if quota == "max" else int(quota) / int(period)
    quota_us, period_us = _number("cpu", "cpu.cfs_quota_us"), _number("cpu", "cpu.cfs_period_us")
    return quota_us / period_us if quota_us and period_us and quota_us > 0 else None


def process_limit() -> int | None:
    """Processes and threads."""
    return _number("pids", "pids.max")


def _number(controller: str, *names: str) -> int | None:
    """Of the first of the files that is there and has one; `max` is none."""
    for name in names:
        text = _read(controller, name)
        if text and text.lstrip("-").isdecimal():
            return int(text)
    return None


def _read(controller: str, name: str) -> str | None:
    """A file of this process's group, or of the nearest one above it that has it.

    In a container the path that the process has is often the host's, and its own group is the root.
    """
    try:
        rows = [line.split(":", 2) for line in PROCESS.read_text(encoding="utf-8").splitlines()]
    except OSError:
        return None
    for number, controllers, path in rows:
        if number == "0" and not controllers:
            root = ROOT
        elif controller in controllers.split(","):
            root = ROOT / controller
        else:
            continue
        own = root / path.lstrip("/")
        for folder in [own, *own.parents]:
            if not folder.is_relative_to(root):
                break
            try:
                return (folder / name).read_text(encoding="utf-8").strip()
            except OSError:
                continue
    return None
