"""The weights in a Hugging Face folder, read in slices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from rlstack.config.weight_index import weight_files
from rlstack.errors import ConfigError
from rlstack.model.weight_names import Part


class TensorFolder:
    """The tensors of a folder's *.safetensors; a file is mapped when the first tensor of it is read.

    What is read is a view of the mapped file: nothing is copied, and the ranks of a host share its pages.
    """

    def __init__(self, folder: Path) -> None:
        """Raises ConfigError if weights are missing, cut off or in no format that is read."""
        self.folder = folder
        self._files = weight_files(folder)
        self._opened: dict[Path, Any] = {}

    def read(self, part: Part, bounds: slice | None) -> Tensor:
        """`part`, or its slice along `part.cut`; ConfigError if it is missing or of another shape."""
        if part.name not in self._files:
            raise ConfigError(f"{self.folder}: the weights lack {part.name}, which config.json asks for")
        view = self._open(self._files[part.name]).get_slice(part.name)
        if (shape := tuple(view.get_shape())) != part.shape:
            raise ConfigError(f"{self.folder}: {part.name} is {shape}, but config.json makes it {part.shape}")
        if bounds is None:
            return view[:]
        return view[bounds] if part.cut == 0 else view[:, bounds]

    def _open(self, path: Path) -> Any:
        if path not in self._opened:
            try:
                self._opened[path] = safe_open(path, framework="pt")
            except (OSError, SafetensorError) as error:
                raise ConfigError(f"{path}: is not a safetensors file ({error})") from None
        return self._opened[path]
