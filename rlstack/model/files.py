"""The files of a Hugging Face folder, wherever one is read or copied, and the JSON in them.

A folder is anybody's: its files may be links to what the user alone can read, pipes that are never written
to, devices without an end. What is refused here is refused before it is opened, and before anything heavy
starts: neither torch nor transformers is imported.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from io import BufferedReader
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
TEMPLATES = "additional_chat_templates"  # the folder of a model's own chat templates, *.jinja
# All that goes along when a model is written anew, but for config.json; templates besides.
COMPANIONS = (
    *TOKENIZER_FILES,
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "vocab.bpe",
    "merges.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tekken.json",
    "chat_template.jinja",
    GENERATION,
)
SMALL_MIB = 4  # of config.json, generation_config.json and a template
LARGE_MIB = 256  # of a tokenizer's files and an index of weights; the largest that are published have some 35
_READ_WHOLE = (".json", ".jinja", ".txt", ".bpe", ".model")  # endings of files that are read at once
_MAX_LINKS = 40  # from one to the next, as in Linux itself
_KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}


def check_files(folder: Path, *, setting: str) -> None:
    """Refuse a model's folder that leads its readers elsewhere, or to what is no file.

    Looks at all that the folder and the folders in it hold, but for hidden files, which nobody reads.

    Raises:
        ConfigError: naming `setting`, the file, and what leads where.
    """
    allowed = _allowed(folder)
    for name in _names(folder):
        try:
            if not os.path.isdir(_followed(os.path.join(folder, name), allowed)):
                regular_file(folder, name)
        except FileNotFoundError:  # a part of a hub's cache that was not downloaded
            continue
        except (OSError, ValueError) as error:
            raise ConfigError(f"{setting} = {folder}: {name} {_reason(error)}") from None


def regular_file(folder: Path, name: str) -> str:
    """The path, free of links, of the regular file `name` in a model's `folder`.

    A link may lead to another file in the folder, and from a snapshot in a hub's cache to the blobs of the
    same model: models--NAME/snapshots/REVISION/FILE to models--NAME/blobs.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is none, leads out of the folder or is too large, which the message says in half a
            sentence, with a remedy.
    """
    path = _followed(os.path.join(folder, name), _allowed(folder))
    found = os.lstat(path)
    if not stat.S_ISREG(found.st_mode):
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "something else")
        raise ValueError(f"is {kind} where a file belongs; put the file itself in its place")
    if (limit := _limit_mib(name)) is not None and found.st_size > limit << 20:
        raise ValueError(
            f"has {found.st_size >> 20} MiB, and at most {limit} are accepted; get the file again"
        )
    return path


def open_file(folder: Path, name: str) -> BufferedReader:
    """The file `name` of a model's `folder`, opened for reading; raises as `regular_file` does."""
    # Whatever has taken its place since: no link is followed, no pipe waited for.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    file = os.fdopen(os.open(regular_file(folder, name), flags), "rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise ValueError("is not a file any more; put the file itself in its place")
    return file


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file of a model's folder.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it has something else, which the message says in half a sentence, with a remedy.
    """
    limit = (_limit_mib(path.name) or LARGE_MIB) << 20
    with open_file(path.parent, path.name) as file:
        content = file.read(limit)
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
    """Raise ConfigError for the first of the files `names` that is there and cannot be read.

    The folder as a whole is held to `check_files`.
    """
    check_files(folder, setting=setting)
    for name in names:
        try:
            read_object(folder / name)
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            raise ConfigError(f"{setting} = {folder}: {name} {_reason(error)}") from None


def companions(folder: Path) -> list[str]:
    """The names, relative to a model's `folder`, of COMPANIONS and of the templates that it has."""
    templates = sorted(f"{TEMPLATES}/{path.name}" for path in folder.glob(f"{TEMPLATES}/*.jinja"))
    return [name for name in (*COMPANIONS, *templates) if os.path.exists(folder / name)]


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


def _names(folder: Path) -> Iterator[str]:
    """The entries of the folder and of the folders in it, relative to it."""
    for entry in _entries(folder):
        yield entry.name
        if entry.is_dir():
            yield from (f"{entry.name}/{inner.name}" for inner in _entries(entry.path))


def _entries(folder: str | Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted((e for e in entries if not e.name.startswith(".")), key=lambda e: e.name)
    except OSError:  # it is not there, or nobody can read it
        return []


def _allowed(folder: Path) -> list[str]:
    """Where the files of the model in `folder` may be."""
    real = Path(os.path.realpath(folder))
    blobs = [
        str(above.parent / "blobs")
        for above in real.parents
        if above.name == "snapshots" and above.parent.name.startswith("models--")
    ]
    return [str(real), *blobs]


def _followed(path: str, allowed: list[str]) -> str:
    """The path that links lead to from `path`; ValueError if one of them leads out of `allowed`."""
    for _ in range(_MAX_LINKS):
        folder, name = os.path.split(path)
        path = os.path.normpath(os.path.join(os.path.realpath(folder), name))
        if not any(path == place or path.startswith(f"{place}/") for place in allowed):
            raise ValueError(
                f"is a link to {path}, out of the model's folder; put a copy of the file in its place"
            )
        if not os.path.islink(path):
            return path
        path = os.path.join(os.path.dirname(path), os.readlink(path))
    raise ValueError("is a link that leads to itself; put the file in its place")


def _limit_mib(name: str) -> int | None:
    """Of a file that is read whole; None for others, such as weights."""
    if name in (CONFIG, GENERATION) or name.endswith(".jinja"):
        return SMALL_MIB
    return LARGE_MIB if name.endswith(_READ_WHOLE) else None
