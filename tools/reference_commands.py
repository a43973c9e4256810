"""docs/reference/commands.md, from the commands themselves."""

from __future__ import annotations

from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_type_hints

import typer
from reference_markdown import code, page, table

from rlstack.cli import app

WORDS = {int: "INTEGER", float: "NUMBER", str: "TEXT", Path: "PATH"}
INTRODUCTION = """`rlstack --help` lists these, and `rlstack COMMAND --help` prints what is said here.

Every command exits with 0 if everything asked for was done, 2 for a usage or configuration error, 130 after
Ctrl-C and 1 otherwise. `KEY=VALUE` is any of the [settings](settings.md)."""


def commands_page() -> str:
    """The whole page."""
    commands: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    blocks = [INTRODUCTION]
    for name, command in commands.items():
        blocks += _section(name, command)
    return page("Commands", "rlstack/cli", *blocks)


def _section(name: str, command: Any) -> list[str]:
    types = get_type_hints(command.callback)
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    options = [each for each in command.params if each.param_type_name == "option" and not each.hidden]
    usage = " ".join(["rlstack", name, *map(_in_usage, arguments), *(["[OPTIONS]"] if options else [])])
    blocks = [f"## rlstack {name}", f"```text\n{usage}\n```", _text(command.help)]
    if arguments:
        rows = [[code(each.metavar or each.name.upper()), _text(each.help or "")] for each in arguments]
        blocks.append(table(["argument", "meaning"], rows))
    if options:
        rows = [_option(each, types.get(each.name)) for each in options]
        blocks.append(table(["option", "default", "meaning"], rows))
    if examples := _examples(command.epilog or ""):
        blocks.append("```bash\n" + "\n".join(examples) + "\n```")
    return blocks


def _in_usage(argument: Any) -> str:
    text = argument.metavar or argument.name.upper()
    text = text if argument.required else f"[{text}]"
    return f"{text}..." if argument.nargs == -1 else text


def _option(option: Any, hint: Any) -> list[str]:
    names = ", ".join(code(each) for each in [*option.opts, *option.secondary_opts])
    if not option.is_flag:
        names += f" {option.metavar or _word(hint)}"
    return [names, _default(option), _text(option.help or "")]


def _word(hint: Any) -> str:
    kinds = [each for each in get_args(hint) if each is not type(None)] if _is_union(hint) else [hint]
    return WORDS.get(kinds[0], "TEXT")


def _is_union(hint: Any) -> bool:
    return isinstance(hint, UnionType)


def _default(option: Any) -> str:
    default = option.default
    if default is None or default is False or not option.show_default:
        return ""
    if default is True:
        return code(option.opts[0])
    return code(str(getattr(default, "value", default)))


def _text(text: str) -> str:
    """Paragraphs stay; the source's line ends do not."""
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))


def _examples(epilog: str) -> list[str]:
    """Its lines below "Examples:"."""
    lines = (line.strip() for line in epilog.splitlines())
    return [line for line in lines if line and line != "Examples:"]
