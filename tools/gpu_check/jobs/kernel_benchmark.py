"""Run benchmarks/kernels.py into a folder of results, and leave the figures that matter most.

python tools/gpu_check/jobs/kernel_benchmark.py FOLDER [options of benchmarks/kernels.py]
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from details import leave

BENCHMARK = Path(__file__).parents[3] / "benchmarks" / "kernels.py"
FILE = "gpu_kernels.json"


def main() -> None:
    folder, options = Path(sys.argv[1]), sys.argv[2:]
    out = folder / FILE
    out.unlink(missing_ok=True)  # what is found afterwards is of this run
    process = subprocess.Popen([sys.executable, str(BENCHMARK), "--out", str(out), *options])
    while True:
        try:
            status = process.wait(1.0)
            break
        except subprocess.TimeoutExpired:
            leave_figures(out)  # it writes its file after each shape, and may be stopped in the next one
    leave_figures(out)
    raise SystemExit(status)


def leave_figures(out: Path) -> None:
    """The file's name, and seconds by shape, implementation and pass."""
    if not out.is_file():
        return
    result = json.loads(out.read_text(encoding="utf-8"))
    figures: dict[str, Any] = {}
    for row in result["rows"]:
        shape = ",".join(str(row[letter]) for letter in "THV")
        figures.setdefault(shape, {})[f"{row['implementation']}, {row['pass']}"] = row["time_s"]
    leave(cuda=bool(result["machine"]["gpus"]), file=out.name, time_s=figures)


if __name__ == "__main__":
    main()
