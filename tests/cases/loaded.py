"""Cases of datasets and chat templates: what becomes of rows and texts before any process starts."""

from __future__ import annotations

import gzip
import json
import logging
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from rlstack.config.load import load_config
from rlstack.config.schema import Task
from rlstack.data.datasets import load_task, tokenise
from rlstack.data.load import load_prompts
from rlstack.errors import ConfigError
from tests.cases.case import ROOT, Case, Outcome

SEED = ROOT / "configs" / "tiny" / "seed"
END_OF_TURN = 2  # the token of SEED
NOT_FINITE = {"<NaN as float64>": float("nan"), "<inf as float64>": float("inf")}


def dataset(case: Case) -> Outcome:
    """The rows of a dataset as prompts: problem, answer, and the prompt's text."""
    given = case.input
    with tempfile.TemporaryDirectory() as folder, _warnings() as warnings:
        path = write_dataset(Path(folder), given["format"], given["rows"])
        task = Task(name="t", path=str(path), **given["task"])
        most = given.get("max_prompt_tokens", 10**6)
        try:
            prompts = load_task(
                task,
                _tokenizer(),
                max_prompt_tokens=most,
                where="data.tasks[0]",
                filter_overlong=case.kind == "data/overlong",  # the setting that the case is about
            )
        except ConfigError as error:
            return {"error": str(error)}
    rows = [
        {"problem": each.problem, "answer": each.answer, "prompt": _tokenizer().decode(each.token_ids)}
        for each in prompts
    ]
    return {"rows": rows, "warnings": warnings}


def write_dataset(folder: Path, format: str, rows: Sequence[dict[str, Any]]) -> Path:
    """Rows as a file or folder of `format`, as the cases write it: "jsonl", "file C", "folder with A, B"."""
    if format.startswith("folder with "):
        names = format.removeprefix("folder with ").split(", ")
        for i, name in enumerate(names):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            _write_file(folder / name, rows[i :: len(names)])
        return folder
    words = format.split()
    name = words[1] if words[0] == "file" else f"rows.{words[0]}"
    _write_file(folder / name, rows, twice=words[-1] if "two columns" in format else None)
    return folder / name


def _write_file(path: Path, rows: Sequence[dict[str, Any]], *, twice: str | None = None) -> None:
    if "parquet" in path.name.lower():
        table = pa.Table.from_pylist([{k: _plain(v) for k, v in row.items()} for row in rows])
        if twice is not None:
            table = table.append_column(twice, table[twice])
        pq.write_table(table, path)
        return
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def _plain(value: Any) -> Any:
    return NOT_FINITE.get(value, value) if isinstance(value, str) else value


def templated(case: Case) -> Outcome:
    """One text as the user's turn: how many tokens, and how many that end a turn."""
    tokenizer = AutoTokenizer.from_pretrained(SEED)
    if case.input["chat_template"] != "<as it is>":
        tokenizer.chat_template = case.input["chat_template"]
    try:
        (tokens,) = tokenise(tokenizer, [case.input["text"]])
    except ConfigError as error:
        return {"error": str(error)}
    return {"num_tokens": len(tokens), "num_turn_ends": int((tokens == END_OF_TURN).sum())}


def model_with_template(case: Case) -> Outcome:
    """The prompts of the quickstart with a model of this chat template."""
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder, "model")
        shutil.copytree(SEED, model)
        settings = json.loads((SEED / "tokenizer_config.json").read_text())
        settings["chat_template"] = case.input["chat_template"]
        (model / "tokenizer_config.json").write_text(json.dumps(settings))
        try:
            load_prompts(load_config(ROOT / "configs" / "quickstart.yaml", [f"policy.model={model}"]))
        except ConfigError as error:
            return {"error": str(error)}
    return {}


@cache
def _tokenizer() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(SEED)


@contextmanager
def _warnings() -> Iterator[list[str]]:
    """The texts of warnings that the project logs meanwhile."""
    texts: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: texts.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("rlstack").addHandler(handler)
    try:
        yield texts
    finally:
        logging.getLogger("rlstack").removeHandler(handler)
