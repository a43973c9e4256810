"""One rank that loads models in one layout after the other, computes logprobs, and exports them.

python -m tests.distributed.parity_job FOLDER RANK: job.json has the layouts as [TP, PP, port of a store], the
precision of each model, and the model that is loaded by one rank, to see what memory that takes.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from rlstack.config.schema import Objective, ObjectiveName, Optimizer, Policy, Precision
from rlstack.losses.build import build_loss
from rlstack.model.architecture import Architecture
from rlstack.model.weight_names import Part
from rlstack.policy.hf_export import export
from rlstack.policy.hf_io import load_weights
from rlstack.policy.model import PolicyModel, build_model
from rlstack.policy.parallel import close_parallel, init_parallel, num_stages, stage
from rlstack.policy.tensor_folder import TensorFolder
from rlstack.policy.trainer import Trainer
from rlstack.rendezvous import connect_store
from tests.distributed.policy_job import read_batches

MAX_FILE_BYTES = 40_000


class Reads:
    """What is read of each tensor, and how much memory of its own the process had at most meanwhile."""

    def __init__(self) -> None:
        self.num_bytes: dict[str, int] = {}
        self.before_bytes = self.most_bytes = own_bytes()
        self._read = TensorFolder.read

    def __enter__(self) -> Reads:
        TensorFolder.read = lambda folder, part, bounds: self.note(folder, part, bounds)  # type: ignore[method-assign]
        return self

    def __exit__(self, *_: object) -> None:
        TensorFolder.read = self._read  # type: ignore[method-assign]

    def note(self, folder: TensorFolder, part: Part, bounds: slice | None) -> torch.Tensor:
        tensor = self._read(folder, part, bounds)
        self.num_bytes[part.name] = self.num_bytes.get(part.name, 0) + tensor.nbytes
        self.most_bytes = max(self.most_bytes, own_bytes())
        return tensor


def own_bytes() -> int:
    """Of this process's memory, without the pages of mapped files."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith("RssAnon:")]
    return int(line.split()[1]) * 1024


def build(folder: Path, policy: Policy) -> PolicyModel:
    """With weights that are there, but wrong."""
    model = build_model(Architecture.from_folder(folder), policy, folder, entropy_gradient=False)
    for parameter in model.parameters():
        parameter.data.fill_(7.0)
    return model


def load(source: Path, policy: Policy) -> tuple[PolicyModel, Reads]:
    model = build(source, policy)
    with Reads() as reads:
        load_weights(model, source)
    return model, reads


def run(source: Path, target: Path, policy: Policy) -> dict[str, int]:
    """What this rank has read; the results lie in `target`."""
    target.mkdir(parents=True, exist_ok=True)
    model, reads = load(source, policy)
    export(model, target / "exported", source=source, max_file_bytes=MAX_FILE_BYTES)
    if policy.precision is Precision.fp32:
        loss = build_loss(Objective(name=ObjectiveName.grpo))
        trainer = Trainer(model, loss=loss, settings=Optimizer(), reference_follows=True)
        (batches,) = read_batches(source.parents[1], 1)
        logprobs = trainer.forward_logprobs(batches)
        if stage() == num_stages() - 1:
            save_file({str(i): t for i, t in enumerate(logprobs)}, target / "logprobs.safetensors")
    return reads.num_bytes


def main(folder: Path, rank: int) -> None:
    job = json.loads((folder / "job.json").read_text())
    read: dict[str, dict[str, dict[str, int]]] = {}
    for layout, (tensor_parallel, pipeline_parallel, port) in job["layouts"].items():
        world_size = tensor_parallel * pipeline_parallel
        if rank >= world_size:  # the others begin with the next layout
            continue
        base = Policy(tensor_parallel=tensor_parallel, pipeline_parallel=pipeline_parallel, step_timeout_s=60)
        store = connect_store("127.0.0.1", port, timeout_s=200)
        init_parallel(base, store, host="127.0.0.1", rank=rank, world_size=world_size, seed=0)
        for name, precision in job["models"].items():
            base.precision = Precision(precision)
            of_model = run(folder / "models" / name, folder / name / layout, base)
            read.setdefault(layout, {})[name] = of_model
        if world_size == 1:
            _, reads = load(folder / "models" / job["large"], base)
            read[layout][job["large"]] = {"more": reads.most_bytes - reads.before_bytes}
        close_parallel()
    (folder / f"read-{rank}.json").write_text(json.dumps(read))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
