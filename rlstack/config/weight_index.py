"""Which of a Hugging Face folder's files holds which tensor, and whether they are all there and whole.

Imports neither torch nor safetensors: a folder that cannot be loaded is refused before anything heavy starts.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rlstack.errors import ConfigError
from rlstack.model.files import check_files, open_file, read_object

INDEX = "model.safetensors.index.json"
_MAX_HEADER_BYTES = 100_000_000  # safetensors' own limit
_CHUNK_BYTES = 1 << 24
OUTPUT_HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"
# Tensors of older folders that nobody loads: the policy computes them, and vLLM leaves them out.
BUFFERS = ("rotary_emb.inv_freq", "rotary_emb.cos_cached", "rotary_emb.sin_cached")
SINGLE = "model.safetensors"
_PICKLES = ("pytorch_model*.bin", "*.pth", "*.pt")


def weight_files(folder: Path, *, setting: str = "policy.model") -> dict[str, Path]:
    """The file of each tensor, by the tensor's name: as the index says, or of all *.safetensors without one.

    `setting` names the folder in messages.

    Raises ConfigError if there are none, if one that the index names is missing or cut off, if the folder
    holds two sets of weights, or if `check_files` refuses it.
    """
    check_files(folder, setting=setting)
    return _indexed(folder, setting) if (folder / INDEX).is_file() else _found(folder, setting)


def tensor_entries(folder: Path) -> dict[str, tuple[Path, Mapping[str, Any]]]:
    """All tensors in the files that `weight_files` settles on, by name: the file, and what its header says.

    What it says is `dtype` (F32), `shape` and `data_offsets`, in bytes from the beginning of the data.

    Raises ConfigError as `weight_files` does.
    """
    return {
        name: (path, entry)
        for path in sorted(set(weight_files(folder).values()))
        for name, entry in _read_header(path)[0].items()
    }


def same_content(folder: Path, one: str, other: str) -> bool:
    """Whether the two tensors hold the same numbers, in the same type and shape."""
    entries = tensor_entries(folder)
    (path, first), (other_path, second) = entries[one], entries[other]
    if (first["dtype"], first["shape"]) != (second["dtype"], second["shape"]):
        return False
    return all(a == b for a, b in zip(_data(path, first), _data(other_path, second), strict=True))


def _data(path: Path, entry: Mapping[str, Any]) -> Iterator[bytes]:
    """A tensor's bytes, in chunks."""
    begin, end = entry["data_offsets"]
    _, start = _read_header(path)
    with open_file(path.parent, path.name) as file:
        file.seek(start + begin)
        for position in range(begin, end, _CHUNK_BYTES):
            yield file.read(min(_CHUNK_BYTES, end - position))


def num_parameters(folder: Path) -> int:
    """Elements of all tensors in the folder's files, a tied output layer counted once.

    Raises ConfigError as `weight_files` does.
    """
    return sum(
        math.prod(entry["shape"])
        for path in sorted(set(weight_files(folder).values()))
        for entry in _read_header(path)[0].values()
    )


def _indexed(folder: Path, setting: str) -> dict[str, Path]:
    path = folder / INDEX
    try:
        places = read_object(path)["weight_map"]
        files = {str(name): folder / _plain(file) for name, file in places.items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path}: is not an index of weights ({error}); get it again") from None
    wanted = sorted(set(files.values()))
    single = folder / SINGLE
    if single.is_file() and single not in wanted:
        raise ConfigError(
            f"{setting} = {folder}: has two sets of weights, {SINGLE} and those that {INDEX} names, and "
            f"transformers takes the first where vLLM takes the second; remove {INDEX} or {SINGLE}"
        )
    if missing := [file.name for file in wanted if not os.path.isfile(file)]:
        raise ConfigError(
            f"{setting} = {folder}: {len(missing)} of the {len(wanted)} files that {INDEX} names are "
            f"missing, {missing[0]} first; get them again"
        )
    held = {name: file for file in wanted for name in _header(file)}
    for name, file in files.items():
        if held.get(name) != file:
            raise ConfigError(f"{file}: lacks {name}, which {INDEX} places there; get both again")
    return files


def _found(folder: Path, setting: str) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for path in sorted(folder.glob("*.safetensors")):
        for name in _header(path):
            if (other := files.setdefault(name, path)) != path:
                raise ConfigError(
                    f"{setting} = {folder}: {name} is in {other.name} and in {path.name}, and there is no "
                    f"{INDEX} to say which counts; leave one set of weights in the folder"
                )
    if not files:
        raise ConfigError(f"{setting} = {folder}: {_nothing(folder)}")
    if all(".lora_" in name for name in files):
        raise ConfigError(
            f"{setting} = {folder}: has an adapter's weights only; merge it into its base model"
        )
    return files


def _nothing(folder: Path) -> str:
    for pattern in _PICKLES:
        for path in sorted(folder.glob(pattern)):
            return (
                f"has its weights as {path.name}, a pickle, which could run code when it is read; convert it "
                "where you trust it: AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(NEW)"
            )
    return "has no *.safetensors with weights; give the folder of a whole model"


def _plain(file: str) -> str:
    if Path(file).name != file:
        raise ValueError(f"{file!r} is not the name of a file")
    return file


def _header(path: Path) -> Iterator[str]:
    """The names of the tensors in the file; its end is where the last of them ends."""
    try:
        entries, start = _read_header(path)
        end = start + max((entry["data_offsets"][1] for entry in entries.values()), default=0)
        size = path.stat().st_size
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ConfigError(f"{path}: is not a safetensors file ({error}); get it again") from None
    if size != end:
        raise ConfigError(
            f"{path}: has {size} bytes where its header says {end}, it was cut off; get it again"
        )
    return iter(entries)


def _read_header(path: Path) -> tuple[Mapping[str, Any], int]:
    """What the file says of its tensors, and where their data begins, in bytes."""
    with open_file(path.parent, path.name) as file:
        size = int.from_bytes(file.read(8), "little")
        if size > _MAX_HEADER_BYTES:
            raise ValueError(f"a header of {size} bytes")
        entries = json.loads(file.read(size))
    entries.pop("__metadata__", None)
    return entries, 8 + size
