"""Prompts of AlpacaEval and Arena-Hard, and answers in the files that those tools read.

Formats as of tatsu-lab/alpaca_eval 0.6 (`--model_outputs FILE`) and of lmarena/arena-hard-auto after 2025-04
(data/BENCH/model_answer/NAME.jsonl; its older questions, with `question_id`, get the older answers).
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from rlstack.errors import ConfigError
from rlstack.telemetry.run_dir import to_json

ANSWERS = "model_answer"  # Arena-Hard's folder


class BenchmarkName(StrEnum):
    alpaca_eval = "alpaca_eval"
    arena_hard = "arena_hard"


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """The questions of one of the two tools."""

    name: BenchmarkName
    rows: tuple[dict[str, Any], ...]  # as the file has them

    @classmethod
    def read(cls, name: BenchmarkName, path: Path) -> Benchmark:
        """The questions of `path`: one JSON list (alpaca_eval.json) or JSONL (question.jsonl).

        Raises ConfigError if the file cannot be read or a row has no text to ask.
        """
        rows = read_rows(path)
        for number, row in enumerate(rows, 1):
            if _text(name, row) is None:
                accepted = "`instruction`" if name is BenchmarkName.alpaca_eval else "`prompt` and `uid`"
                raise ConfigError(
                    f"{path}, row {number}: a row of {name} has {accepted}; give the tool's file"
                )
        return cls(name=name, rows=tuple(rows))

    def texts(self) -> list[str]:
        """What is asked, by row."""
        return [text for row in self.rows if (text := _text(self.name, row)) is not None]

    def write(self, folder: Path, responses: Sequence[str], *, generator: str) -> Path:
        """The answers of the model called `generator`, one to a row; the file that was written.

        Arena-Hard's style control needs token counts of its own tokenizer besides: its
        utils/add_markdown_info.py adds them.
        """
        folder = folder / self.name
        if self.name is BenchmarkName.alpaca_eval:
            path = folder / "model_outputs.json"
            lines = [_alpaca_answer(row, r, generator) for row, r in zip(self.rows, responses, strict=True)]
            text = to_json(lines, indent=2) + "\n"
        else:
            path = folder / ANSWERS / f"{generator}.jsonl"
            answers = [_arena_answer(row, r, generator) for row, r in zip(self.rows, responses, strict=True)]
            text = "".join(to_json(row) + "\n" for row in answers)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The objects of a file that is one JSON list, or JSONL."""
    try:
        text = path.read_text(encoding="utf-8")
        rows = json.loads(text) if text.lstrip().startswith("[") else _lines(text)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); give a JSON or JSONL file") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: is neither a JSON list nor JSONL ({error})") from None
    if not rows or not all(isinstance(row, dict) for row in rows):
        raise ConfigError(f"{path}: one object or more is needed, as a JSON list or one on each line")
    return rows


def _lines(text: str) -> list[Any]:
    return [json.loads(line) for line in text.split("\n") if line.strip()]


def _text(name: BenchmarkName, row: Mapping[str, Any]) -> str | None:
    if name is BenchmarkName.alpaca_eval:
        text = row.get("instruction")
    elif "uid" in row:
        text = row.get("prompt")
    else:
        turns = row.get("turns", [])
        text = turns[0].get("content") if "question_id" in row and len(turns) == 1 else None
    return text if isinstance(text, str) and text.strip() else None


def _alpaca_answer(row: Mapping[str, Any], response: str, generator: str) -> dict[str, Any]:
    answer = {"instruction": row["instruction"], "output": response, "generator": generator}
    return answer | ({"dataset": row["dataset"]} if "dataset" in row else {})


def _arena_answer(row: Mapping[str, Any], response: str, generator: str) -> dict[str, Any]:
    identity = str(row["uid"] if "uid" in row else row["question_id"])
    answer_id = hashlib.blake2b(f"{generator}/{identity}".encode(), digest_size=11).hexdigest()
    if "uid" not in row:
        choice = {"index": 0, "turns": [{"content": response}]}
        ids = {"question_id": row["question_id"], "answer_id": answer_id, "model_id": generator}
        return {**ids, "choices": [choice], "tstamp": time.time()}
    messages = [
        {"role": "user", "content": row["prompt"]},
        {"role": "assistant", "content": {"answer": response}},
    ]
    ids = {"uid": row["uid"], "ans_id": answer_id, "model": generator}
    return {**ids, "messages": messages, "tstamp": time.time()}
