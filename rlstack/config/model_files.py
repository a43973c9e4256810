"""The JSON files of a Hugging Face folder, read so that a damaged one is refused by name.

Imports neither torch nor transformers: what is refused here is refused before anything heavy starts.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rlstack.errors import ConfigError

BOM = b"\xef\xbb\xbf"
CONFIG = "config.json"
GENERATION = "generation_config.json"
TOKENIZER = "tokenizer.json"
# Those that transformers reads for a tokenizer, where they are there.
TOKENIZER_FILES = (
    TOKENIZER,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.json",
)


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in the file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it has something else, which the message says in half a sentence, with a remedy.
    """
    content = path.read_bytes()
    if content.startswith(BOM):
        raise ValueError("begins with a byte order mark; save it as UTF-8 without one")
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"cannot be read as JSON ({error}); get the file again") from None
    if not isinstance(found, dict):
        raise ValueError("is not a JSON object; get the file again")
    return found


def refuse_damaged(folder: Path, names: tuple[str, ...], *, setting: str) -> None:
    """Raise ConfigError for the first of the files `names` that is there and cannot be read."""
    for name in names:
        try:
            read_object(folder / name)
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            raise ConfigError(f"{setting} = {folder}: {name} {_reason(error)}") from None


def end_token_ids(folder: Path) -> list[int]:
    """The end tokens that the folder names, in config.json and in generation_config.json; ascending.

    Instruction-tuned models have several; the tokenizer's own is vLLM's default and need not be repeated.

    Raises:
        ConfigError: a file is damaged, or an end token is not the number of a token.
    """
    refuse_damaged(folder, (CONFIG, GENERATION), setting="policy.model")
    ids: set[int] = set()
    for name in (CONFIG, GENERATION):
        if (folder / name).exists():
            ids.update(_end_tokens(read_object(folder / name).get("eos_token_id"), folder, name))
    return sorted(ids)


def _end_tokens(given: Any, folder: Path, name: str) -> Iterator[int]:
    for token in given if isinstance(given, list) else [] if given is None else [given]:
        if type(token) is not int or token < 0:
            raise ConfigError(
                f"policy.model = {folder}: {name} has eos_token_id = {json.dumps(given)}; the number of a "
                "token is accepted, without quotes, or a list of them"
            )
        yield token


def _reason(error: Exception) -> str:
    """What read_object says, or the operating system."""
    return str(error) if type(error) is ValueError else f"cannot be read ({error}); get the file again"
