"""Writes the tiny task's prompts: every fraction sum and every note prompt, split by a hash of its text."""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

import fraction_sums
import note_task

Row = dict[str, str]


def rows(*, seed: int) -> dict[str, list[Row]]:
    """The rows of each file, by its path below the output folder; `seed` sets their order only."""
    rng = random.Random(seed)
    files: dict[str, list[Row]] = {}
    for split, held_out in (("train", False), ("heldout", True)):
        sums = fraction_sums.all_problems(held_out=held_out)
        files[f"fractions/{split}.jsonl"] = [
            {"problem": item.problem, "answer": item.answer} for item in sums
        ]
        prompts = note_task.all_prompts(held_out=held_out)
        files[f"notes/{split}.jsonl"] = [{"problem": item.problem} for item in prompts]
    for file_rows in files.values():
        rng.shuffle(file_rows)
    return files


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder that gets fractions/ and notes/")
    parser.add_argument("--seed", type=int, default=0, help="of the order of the rows")
    arguments = parser.parse_args()

    for name, file_rows in rows(seed=arguments.seed).items():
        path = arguments.out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in file_rows), encoding="utf-8")
        print(f"{path}: {len(file_rows)} rows")


if __name__ == "__main__":
    main()
