"""Write the table by which "auto" chooses between the kernels: python tools/measured_kernels.py

From benchmarks/results/gpu_kernels.json, if it is there and was made on a GPU. A test holds the table to it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "gpu_kernels.json"
TABLE = ROOT / "kernels" / "rlstack_kernels" / "measured.json"
PASS, OWN, LIGER = "forward_backward", "rlstack", "rlstack liger"


def rows_of(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row for each shape of which both were measured; none of a machine without GPUs."""
    gpus = result["machine"]["gpus"]
    if not gpus:
        return []
    trained = [row for row in result["rows"] if row["pass"] == PASS and row["entropy"] == "yes"]
    shapes = dict.fromkeys((row["T"], row["H"], row["V"], row["dtype"]) for row in trained)
    rows = []
    for tokens, hidden, vocab, dtype in shapes:
        found = {
            row["implementation"]: row
            for row in trained
            if (row["T"], row["H"], row["V"], row["dtype"]) == (tokens, hidden, vocab, dtype)
        }
        if OWN in found and LIGER in found:
            rows.append(
                {
                    "gpu": gpus[0],
                    "dtype": dtype,
                    "tokens": tokens,
                    "hidden": hidden,
                    "vocab": vocab,
                    "own_s": found[OWN]["time_s"],
                    "liger_s": found[LIGER]["time_s"],
                    "liger_error": found[LIGER]["max_error"],
                }
            )
    return rows


def table() -> str:
    """The file as it has to be."""
    rows = rows_of(json.loads(RESULT.read_text(encoding="utf-8"))) if RESULT.is_file() else []
    return json.dumps(rows, indent=2) + "\n"


def main() -> None:
    TABLE.write_text(table(), encoding="utf-8")
    print(TABLE.relative_to(ROOT))


if __name__ == "__main__":
    main()
