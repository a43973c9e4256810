"""What a checkpoint of the policy is of, as JSON: compared with what is running before any tensor is read."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rlstack.config.schema import Policy
from rlstack.errors import CheckpointError
from rlstack.model.architecture import Architecture

HEADER = "header.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    version: int  # of the policy
    served_version: int  # what the engines hold
    reference_version: int | None  # None: there is no reference with weights of its own
    architecture: dict[str, Any]  # as asdict(Architecture)
    precision: str  # of the weights
    layout: dict[str, int]  # that it was written in; another one may read it
    device: str  # cpu | cuda: whose random states they are
    lr_schedule: dict[str, float]

    def write(self, folder: Path) -> None:
        (folder / HEADER).write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Header:
        """Raises CheckpointError if it is missing or not what `write` writes."""
        path = folder / HEADER
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError, RecursionError) as error:
            raise CheckpointError(f"{path}: cannot be read ({error}); use another checkpoint") from None

    def check(self, architecture: Architecture, policy: Policy, *, path: Path) -> None:
        """Raise CheckpointError if it is of another model or precision than what is running."""
        self.check_model(architecture, policy.model, path=path)
        if self.precision != policy.precision.value:
            raise CheckpointError(
                f"{path}: was written with policy.precision = {self.precision}, but it is "
                f"{policy.precision.value} now; set it to {self.precision}"
            )

    def check_model(self, architecture: Architecture, model: str, *, path: Path) -> None:
        """Raise CheckpointError if it is of another model than that of the folder `model`."""
        ours = asdict(architecture)
        for name in sorted(ours.keys() | self.architecture.keys()):
            saved, running = self.architecture.get(name), ours.get(name)
            if saved != running:
                raise CheckpointError(
                    f"{path}: is of a model with {name} = {saved!r}, but policy.model = {model} has "
                    f"{running!r}; use the model or the checkpoint of the same run"
                )


def layout_of(policy: Policy) -> dict[str, int]:
    """Ranks by axis."""
    return {
        "tensor": policy.tensor_parallel,
        "pipeline": policy.pipeline_parallel,
        "context": policy.context_parallel,
        "data": policy.data_parallel,
    }
