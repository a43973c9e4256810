"""A process that starts others all the time, as a role does that starts up, and what is left of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil

# Every few milliseconds another one, each with memory of its own.
FORKS = """
import mmap, os, sys, time
for number in range(3000):
    if os.fork() == 0:
        own = open(f"/dev/shm/psm_{sys.argv[1]}_{number}", "w+b")
        own.truncate(4096)
        own = mmap.mmap(own.fileno(), 4096)
        time.sleep(600)
    time.sleep(0.002)
"""


def start_forking(word: str) -> subprocess.Popen[bytes]:
    """Start it; `word` marks what is of it."""
    return subprocess.Popen([sys.executable, "-c", FORKS, word])


def memory_of(word: str) -> list[Path]:
    """Its files of shared memory."""
    return [*Path("/dev/shm").glob(f"psm_{word}_*")]


def processes_of(word: str) -> list[psutil.Process]:
    """The process and those that it has started, without those that have ended."""
    return [each for each in psutil.process_iter(["cmdline"]) if word in (each.info["cmdline"] or [])]


def remove_all_of(word: str) -> None:
    """End what is left and remove its memory."""
    while left := processes_of(word):
        for process in left:
            process.kill()
        psutil.wait_procs(left, timeout=1.0)
    for path in memory_of(word):
        path.unlink()
