"""The weights in a Hugging Face folder, read in slices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from rlstack.errors import ConfigError
from rlstack.policy.hf_map import Part


class TensorFolder:
    """The tensors of a folder's *.safetensors, read lazily and in slices."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files: dict[str, Any] = {}
        for path in sorted(folder.glob("*.safetensors")):
            try:
                opened = safe_open(path, framework="pt")
            except (OSError, SafetensorError) as error:
                raise ConfigError(f"{path}: is not a safetensors file ({error})") from None
            self._files.update(dict.fromkeys(opened.keys(), opened))
        if not self._files:
            raise ConfigError(f"policy.model = {folder}: has no *.safetensors with weights")

    def read(self, part: Part, bounds: slice | None) -> Tensor:
        """`part`, or its slice along `part.cut`; ConfigError if it is missing or of another shape."""
        if part.name not in self._files:
            raise ConfigError(f"{self.folder}: the weights lack {part.name}, which config.json asks for")
        view = self._files[part.name].get_slice(part.name)
        if (shape := tuple(view.get_shape())) != part.shape:
            raise ConfigError(f"{self.folder}: {part.name} is {shape}, but config.json makes it {part.shape}")
        if bounds is None:
            return view[:]
        return view[bounds] if part.cut == 0 else view[:, bounds]
