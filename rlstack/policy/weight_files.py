"""Hugging Face weights on their way to disk, tensor by tensor, into files of a bounded size.

The format of a *.safetensors file puts the place of every tensor before the first one, and so a file can be
filled in place, in any order: no more than one tensor is ever held. safetensors' own `save_file` takes the
tensors of a whole file at once. Format: https://github.com/huggingface/safetensors#format.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from rlstack.config.weight_index import INDEX
from rlstack.files import sync_to_disk
from rlstack.model.architecture import Architecture
from rlstack.model.weight_names import wire_rules

Spec = tuple[str, tuple[int, ...], str]  # name, shape, dtype as in "float32"

MAX_FILE_BYTES = 5 * 10**9  # transformers' max_shard_size, "5GB"

_DTYPES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}


@dataclass(frozen=True, slots=True)
class PlannedFile:
    """One file, by its name, and the tensors that it holds, in order."""

    name: str
    specs: tuple[Spec, ...]


def num_bytes(spec: Spec) -> int:
    """Of the tensor's data."""
    _, shape, dtype = spec
    itemsize: int = getattr(torch, dtype).itemsize
    return math.prod(shape) * itemsize


def specs_of(architecture: Architecture, dtype: str) -> list[Spec]:
    """Of the whole model's Hugging Face tensors, in the order of the layers; dtype as in "float32"."""
    rules = wire_rules(architecture).values()
    return [(part.name, part.shape, dtype) for rule in rules for part in rule.parts]


def plan_files(specs: Iterable[Spec], *, max_file_bytes: int) -> list[PlannedFile]:
    """Which file each tensor goes to, in the order given, under the names that transformers looks for.

    A file holds at most `max_file_bytes` of data, or one tensor that is larger than that.
    """
    groups: list[list[Spec]] = []
    room = 0
    for spec in specs:
        size = num_bytes(spec)
        if not groups or size > room:
            groups.append([])
            room = max_file_bytes
        groups[-1].append(spec)
        room -= size
    if len(groups) == 1:
        return [PlannedFile("model.safetensors", tuple(groups[0]))]
    return [
        PlannedFile(f"model-{number:05d}-of-{len(groups):05d}.safetensors", tuple(group))
        for number, group in enumerate(groups, start=1)
    ]


class WeightFiles:
    """The files of a model in `folder`, which is there; `write` each tensor once, then `close`."""

    def __init__(self, folder: Path, specs: Iterable[Spec], *, max_file_bytes: int = MAX_FILE_BYTES) -> None:
        self._folder = folder
        self._files = plan_files(specs, max_file_bytes=max_file_bytes)
        self._missing: dict[str, tuple[Path, int, Spec]] = {}
        for file in self._files:
            self._begin(file)

    def write(self, name: str, tensor: Tensor) -> None:
        """Put the tensor called `name` into its place, cast to the dtype planned, whatever came before it.

        Raises ValueError if it is not planned, was written already, or is of another shape.
        """
        if name not in self._missing:
            raise ValueError(f"{name} is not among the tensors that remain to be written")
        path, start, (_, shape, dtype) = self._missing.pop(name)
        if tuple(tensor.shape) != shape:
            raise ValueError(f"{name} is {tuple(tensor.shape)}, but was planned as {shape}")
        content = tensor.detach().to("cpu", getattr(torch, dtype)).contiguous().flatten().view(torch.uint8)
        with path.open("r+b") as file:
            file.seek(start)
            file.write(content.numpy().data)

    def close(self) -> None:
        """Have everything on the disk, and write the index if there are several files.

        Raises ValueError if a tensor has not been written.
        """
        if self._missing:
            raise ValueError(
                f"{len(self._missing)} tensors were not written, {next(iter(self._missing))} first"
            )
        for file in self._files:
            sync_to_disk(self._folder / file.name)
        if len(self._files) > 1:
            specs = [spec for file in self._files for spec in file.specs]
            content = {
                "metadata": {"total_size": sum(map(num_bytes, specs))},
                "weight_map": {name: file.name for file in self._files for name, _, _ in file.specs},
            }
            text = json.dumps(content, indent=2) + "\n"
            (self._folder / INDEX).write_text(text, encoding="utf-8")

    def _begin(self, file: PlannedFile) -> None:
        """Write the header, and make room for the data."""
        path = self._folder / file.name
        header, start = header_of(file.specs), 0
        for spec in file.specs:
            self._missing[spec[0]] = path, len(header) + start, spec
            start += num_bytes(spec)
        with path.open("wb") as opened:
            opened.write(header)
            opened.truncate(len(header) + start)


def header_of(specs: Iterable[Spec]) -> bytes:
    """What a file with these tensors, one behind the other, begins with; a multiple of 8 bytes."""
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    start = 0
    for spec in specs:
        name, shape, dtype = spec
        end = start + num_bytes(spec)
        entries[name] = {"dtype": _DTYPES[dtype], "shape": shape, "data_offsets": [start, end]}
        start = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
