"""A digest of each file of a Hugging Face folder that a run depends on, at a cost that no weights set.

Weights are known by their size, their header with the tensors' names, types and shapes, and NUM_BLOCKS blocks
of BLOCK_BYTES at places that follow from the size, from the first byte to the last: 4 MiB of a file of any
size, so that one of up to 4 MiB is read whole. The other files, of which the largest are a tokenizer's, are
read whole. A README, a licence or a log beside them is none of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from io import BufferedReader
from pathlib import Path
from typing import NamedTuple

from rlstack.config.weight_index import INDEX
from rlstack.model.files import CONFIG, companions, open_file, read_object

BLOCK_BYTES = 64 * 1024
NUM_BLOCKS = 64
_MAX_HEADER_BYTES = 16 * 1024**2  # that of 100,000 tensors; what is longer is known by its beginning
_NUM_THREADS = 8  # which wait for the storage
_WEIGHTS = ".safetensors"


class FileDigest(NamedTuple):
    """A file's size and a SHA-256 of its content, or of samples of it; or the reason why it has none."""

    num_bytes: int
    sha256: str  # in hex
    trouble: str = ""  # half a sentence, such as "is a pipe where a file belongs"


Files = Mapping[str, FileDigest]  # by name, relative to a folder


def digests_of_model(folder: Path) -> Files:
    """The digests of the model in `folder`, by file name; empty where there is no such folder.

    The files are the weights, config.json, and those of the tokenizer, chat templates and generation.
    """
    names = list(dict.fromkeys(_names(folder)))
    with ThreadPoolExecutor(_NUM_THREADS) as pool:
        return dict(zip(names, pool.map(lambda name: _digest(folder, name), names), strict=True))


def digest_of_content(content: bytes) -> FileDigest:
    """The digest of a whole file with this `content`."""
    return FileDigest(len(content), hashlib.sha256(content).hexdigest())


def _names(folder: Path) -> Iterator[str]:
    """The files that are there, weights first: those of the index, or else all."""
    yield from _indexed(folder) or sorted(path.name for path in folder.glob(f"*{_WEIGHTS}"))
    yield from (name for name in (CONFIG, INDEX) if (folder / name).exists())
    yield from companions(folder)


def _indexed(folder: Path) -> list[str]:
    """The weights that the index names and that are there; none without an index that can be read."""
    try:
        named = set(read_object(folder / INDEX)["weight_map"].values())
        return sorted(name for name in named if (folder / name).exists())
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return []


def _digest(folder: Path, name: str) -> FileDigest:
    try:
        with open_file(folder, name) as file:
            if name.endswith(_WEIGHTS):
                return _sampled(file)
            content = hashlib.file_digest(file, "sha256").hexdigest()
            return FileDigest(file.tell(), content)
    except (OSError, ValueError) as error:
        return FileDigest(0, "", str(getattr(error, "strerror", None) or error))


def _sampled(file: BufferedReader) -> FileDigest:
    """The digest of a file of weights, of which no more than header and blocks are read."""
    size = file.seek(0, 2)
    file.seek(0)
    length = file.read(8)
    hashed = hashlib.sha256(length)
    hashed.update(file.read(min(int.from_bytes(length, "little"), _MAX_HEADER_BYTES)))
    last = max(size - BLOCK_BYTES, 0)
    for place in sorted({number * last // (NUM_BLOCKS - 1) for number in range(NUM_BLOCKS)}):
        file.seek(place)
        hashed.update(file.read(BLOCK_BYTES))
    return FileDigest(size, hashed.hexdigest())
