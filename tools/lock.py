"""Write requirements.lock, what `make setup` installs: .venv/bin/python tools/lock.py

The versions are those of this environment, in which the tests have passed; the hashes are of the files that
pip finds for them on Linux x86-64 and Python 3.11. To move to other versions, install them, run the tests,
and write the lock anew. torch is not in it: `make setup` takes the CPU build that pyproject.toml names from
where the environment says that there is one.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from setup import COMPANIONS, EXTRAS, LOCK

from rlstack.doctor.checks.requirements import brought
from rlstack.doctor.probes import packages

LEFT_OUT = {"torch", "rlstack-megatron", *COMPANIONS}
HEAD = (
    "# What `make setup` installs besides torch, on Linux x86-64 with Python 3.11. tools/lock.py writes it.\n"
)


def versions() -> dict[str, str]:
    """What rlstack with EXTRAS needs of this environment, by name."""
    needed = {need.name: need.version for need in brought(packages.look().installed, EXTRAS)}
    if missing := sorted(
        name for name, version in needed.items() if version is None and name not in LEFT_OUT
    ):
        raise SystemExit(f"{', '.join(missing)}: not installed here; run make setup first")
    return {name: version for name, version in sorted(needed.items()) if version and name not in LEFT_OUT}


def hashes(pinned: Mapping[str, str]) -> dict[str, str]:
    """SHA-256 of the wheel that pip finds for each, by name; nothing is installed."""
    with tempfile.TemporaryDirectory() as folder:
        wanted, report = Path(folder, "wanted.txt"), Path(folder, "report.json")
        wanted.write_text("".join(f"{name}=={version}\n" for name, version in pinned.items()))
        dry = ["--dry-run", "--ignore-installed", "--no-deps", "--only-binary", ":all:", "--quiet"]
        command = ["-m", "pip", "install", *dry, "--report", str(report), "-r", str(wanted)]
        subprocess.run([sys.executable, *command], check=True)
        found = json.loads(report.read_text(encoding="utf-8"))["install"]
    return {
        packages.normalised(each["metadata"]["name"]): each["download_info"]["archive_info"]["hashes"][
            "sha256"
        ]
        for each in found
    }


def main() -> None:
    """Write LOCK."""
    pinned = versions()
    found = hashes(pinned)
    lines = [f"{name}=={version} --hash=sha256:{found[name]}\n" for name, version in pinned.items()]
    LOCK.write_text(HEAD + "".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
