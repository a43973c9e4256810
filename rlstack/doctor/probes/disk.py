"""Where a run writes: whether it may, and how much room is left."""

from __future__ import annotations

import os
from pathlib import Path

from rlstack.config.surroundings import temporary_folder
from rlstack.doctor.facts import Disk, Folder, Settings
from rlstack.preflight.machine import nearest_folder, write_error

GIB = 2**30


def look(settings: Settings | None) -> Disk:
    """The folders that a run writes to."""
    runs = (settings.run_folder if settings is not None else None) or "runs"
    return Disk(runs=_folder(runs), temporary=_folder(temporary_folder()))


def _folder(path: str) -> Folder:
    place = nearest_folder(Path(path))
    try:
        usage = os.statvfs(place)
    except OSError as error:
        return Folder(path=path, error=error.strerror)
    blocks = usage.f_blocks - usage.f_bfree + usage.f_bavail  # without what is kept for root
    return Folder(
        path=path,
        error=write_error(place),
        free_gib=usage.f_bavail * usage.f_frsize / GIB,
        used_share=1 - usage.f_bavail / blocks if blocks else 0.0,
        is_out_of_files=usage.f_files > 0 and usage.f_favail == 0,
    )
