"""The ports and the folders of this machine. Needs the standard library alone."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rlstack.ports import is_busy

NUM_STORES = 2  # ports that a run takes of cluster.port_range: see docs/how-to/clusters.md


def busy_ports(ports: Sequence[int], *, host: str) -> list[int]:
    """Those from the first to the last of `ports` that another process of this machine listens on."""
    return [port for port in range(ports[0], ports[1] + 1) if is_busy(host, port)]


def too_few_ports(ports: Sequence[int], busy: Sequence[int]) -> tuple[str, str] | None:
    """What is wrong with cluster.port_range = `ports`, and the remedy; None: a run has the ports it needs."""
    first, last = ports
    num_free = last - first + 1 - len(busy)
    if num_free >= NUM_STORES:
        return None
    if busy:
        return (
            f"{show_ports(busy)} of cluster.port_range = [{first}, {last}] in use; a run needs {NUM_STORES} "
            "free ones",
            f"widen the range, or see who has it: ss -ltnp 'sport = :{busy[0]}'",
        )
    return (
        f"cluster.port_range = [{first}, {last}] has {num_free} port; a run needs {NUM_STORES}",
        "widen the range",
    )


def show_ports(ports: Sequence[int]) -> str:
    """The first few of them."""
    return ", ".join(map(str, ports[:4])) + (" and more" if len(ports) > 4 else "")


def nearest_folder(path: Path) -> Path:
    """`path`, or the folder above it in which it would be made."""
    place = path.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    return place


def write_error(place: Path) -> str | None:
    """What writing to the folder `place` says: permissions tell neither of read-only disks nor of root."""
    if not place.is_dir():
        return f"{place} is a file"
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(b"rlstack")
            file.flush()
    except OSError as error:
        return f"{place}: {error.strerror}"
    return None


def free_bytes(place: Path) -> int:
    """Of the file system of `place`, for this user; 0 where no file can be made for want of inodes."""
    usage = os.statvfs(place)
    if usage.f_files > 0 and usage.f_favail == 0:
        return 0
    return usage.f_bavail * usage.f_frsize
