"""Commands, settings and code in the Markdown are what the program accepts. Nothing of it is run here."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
from collections.abc import Iterator
from dataclasses import fields
from itertools import dropwhile, takewhile
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from rlstack.cli import app
from rlstack.config.load import load_config
from rlstack.config.machine import Machine
from rlstack.config.schema import RunConfig
from rlstack.config.validate import missing_inputs, problems, validate_evaluation
from rlstack.errors import ConfigError
from rlstack.evaluation.settings import evaluation_config, find_target
from rlstack.model.architecture import Architecture
from rlstack.model.known_models import architecture_of
from tests.markdown import PAGES, ROOT, Block, blocks, code

QUICKSTART = ROOT / "configs" / "quickstart.yaml"
SEED = ROOT / "configs" / "tiny" / "seed"
TWO_CORES = Machine(num_cores=2, num_gpus=0)
TARGETS = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
SECTIONS = {field.name for field in fields(RunConfig)}
ELSEWHERE = {"|", ">", "2>", "&&", "&", ";"}  # where a shell goes on with something else

BLOCKS = [block for page in PAGES for block in blocks(page)]


def command_lines(block: Block) -> list[list[str]]:
    """The words of each command in the block, comments left out; empty for what is no shell's language."""
    if block.language not in ("", "bash", "sh"):
        return []
    lines = block.text.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := words_of(line))]


def words_of(line: str) -> list[str]:
    try:
        words = shlex.split(line, comments=True)
    except ValueError:  # text with an apostrophe: what a command prints
        return []
    words = list(takewhile(lambda word: word not in ELSEWHERE, words))
    return list(dropwhile(re.compile(r"[A-Z_]+=").match, words))


def commands_of(program: str) -> list[Any]:
    """Each call of `program` that a block shows, as (words after it), with where it is as its id."""
    return [
        pytest.param(words[1:], id=f"{block}-{' '.join(words[1:3])}")
        for block in BLOCKS
        for words in command_lines(block)
        if words[0].removeprefix(".venv/bin/") == program
    ]


def parsed(words: list[str]) -> dict[str, Any]:
    """The parameters of a command of rlstack's; raises what its parser raises."""
    command = get_command(app).commands[words[0]]  # type: ignore[attr-defined]
    with command.make_context(words[0], words[1:]) as context:
        return dict(context.params)


def settings(parameters: dict[str, Any]) -> RunConfig:
    """What the command would load; with the quickstart for a file that is the reader's own."""
    path = ROOT / (parameters.get("config") or parameters.get("target") or QUICKSTART)
    overrides = [text.replace("=runs/", "=configs/") for text in parameters["overrides"] or ()]
    return load_config(path if path.is_file() else QUICKSTART, overrides)


def evaluation(parameters: dict[str, Any]) -> RunConfig:
    """As `settings`, of `rlstack evaluate`; the seed stands for the model that a run leaves."""
    target = ROOT / parameters["target"]
    if not target.exists():
        target = SEED if target.name == "model" else QUICKSTART
    names = {"n": "evaluation", "temperature": "evaluation", "top_p": "evaluation"}
    names |= {"num_prompts": "evaluation", "max_new_tokens": "rollout"}
    return evaluation_config(
        find_target(target),
        tasks=parameters["task"] or (),
        settings={f"{section}.{name}": parameters[name] for name, section in names.items()},
        overrides=parameters["overrides"] or (),
    )


def shape(model: str) -> Architecture:
    if (Path(model) / "config.json").is_file():
        return Architecture.from_folder(Path(model))
    return architecture_of("Llama-3.1-8B")


@pytest.mark.parametrize("words", commands_of("rlstack"))
def test_rlstack_takes_the_command(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    if words[0].startswith("-"):
        assert words[0] in {option for p in get_command(app).params for option in (*p.opts, "--help")}
        return
    parameters = parsed(words)
    if "overrides" not in parameters:
        return
    if words[0] == "evaluate":
        config = evaluation(parameters)
        missing = missing_inputs(config)  # problems of the reader's own, and nothing of ours
        assert [line for line in missing if "/configs/" in line] == []
        if words[1].startswith("runs/") and not missing:
            validate_evaluation(config, architecture=shape(config.policy.model), machine=TWO_CORES)
        return
    config = settings(parameters)
    if words[0] == "launch":
        config.cluster.address = "auto"  # as on the node that drives it
    if words[0] != "plan":
        assert problems(config, architecture=shape(config.policy.model), machine=TWO_CORES) == []


@pytest.mark.parametrize("words", commands_of("python"))
def test_a_script_is_there_with_its_options(words: list[str]) -> None:
    script = ROOT / words[0]
    if words[0] == "-m":
        script = ROOT / words[1].replace(".", "/") / "__main__.py"
    elif not words[0].startswith(("tools/", "benchmarks/", "docs/")):
        return  # the reader's own
    files = sorted(script.rglob("*.py")) if (script / "__main__.py").is_file() else [script]
    text = "".join(file.read_text() for file in files)
    options = [word.partition("=")[0] for word in words if word.startswith("--")]
    assert [o for o in options if o not in text and o[2:].replace("-", "_") not in text] == []


def make_targets() -> list[Any]:
    return [pytest.param(target, id=f"{at}-{target}") for at, target in made()]


def made() -> Iterator[tuple[str, str]]:
    for block in BLOCKS:
        for words in command_lines(block):
            if words[0] == "make":
                yield from ((str(block), word) for word in words[1:] if "=" not in word)
    for page in PAGES:
        for line, text in code(page):
            if match := re.fullmatch(r"make ([\w-]+)", text):
                yield f"{page.relative_to(ROOT)}:{line}", match[1]


@pytest.mark.parametrize("target", make_targets())
def test_make_has_the_target(target: str) -> None:
    assert target in TARGETS


def in_language(language: str) -> Any:
    found = [block for block in BLOCKS if block.language == language]
    return pytest.mark.parametrize("block", found, ids=str)


@in_language("python")
def test_python_compiles_and_imports_what_there_is(block: Block) -> None:
    for node in ast.walk(ast.parse(block.text)):
        if isinstance(node, ast.Import):
            ours = [alias.name for alias in node.names if alias.name.split(".")[0] == "rlstack"]
            assert all(importlib.import_module(name) for name in ours)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "rlstack":
            module = importlib.import_module(str(node.module))
            assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []


@in_language("yaml")
def test_settings_load(block: Block, tmp_path: Path) -> None:
    given = yaml.safe_load(block.text)
    if not isinstance(given, dict) or not given.keys() <= SECTIONS | {"base"}:
        return  # not of a run
    given["base"] = str(ROOT / given.get("base", "configs/quickstart.yaml"))
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(given))
    load_config(tmp_path / "run.yaml")


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("rlstack tain configs/quickstart.yaml", KeyError),
        ("rlstack train configs/quickstart.yaml --resum", Exception),
        ("rlstack train configs/quickstart.yaml rollout.tempreature=1", ConfigError),
    ],
)
def test_a_wrong_command_is_found(line: str, error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises(error):
        settings(parsed(words_of(line)[1:]))
