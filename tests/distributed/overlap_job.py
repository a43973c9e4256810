"""One rank of a policy whose weights are read right after a step, in every way that there is.

python -m tests.distributed.overlap_job FOLDER RANK: every folder in FOLDER with a job.json is one policy. It
takes read-<rank>.safetensors, of what was read, and exchanges-<rank>.json, of how it came there.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from omegaconf import OmegaConf
from safetensors.torch import save_file
from torch import Tensor

from rlstack.checkpoint.manifest import Manifest, digest_of, files_in
from rlstack.config.schema import RunConfig, TransferMethod
from rlstack.policy.parallel import data_rank
from rlstack.policy.worker import PolicyWorker
from tests.distributed.policy_job import read_batches


class Reading:
    """The transfer's place, and a record of weights by what read them."""

    def __init__(self, worker: PolicyWorker) -> None:
        self.found: dict[str, Tensor] = {}
        self._worker = worker
        worker._sources = {TransferMethod.gather: self}

    def begin(self, version: int, receivers: object = None) -> None:
        self.note("sent", self._worker.trainer.model.parameters())

    def note(self, name: str, tensors: Iterable[Tensor]) -> None:
        copies = {f"{name}.{index}": tensor.detach().clone() for index, tensor in enumerate(tensors)}
        assert not self.found.keys() & copies.keys()
        self.found |= copies


class Exchanges:
    """Return True if gradients were reduced while others were computed, and weights stayed."""

    def __init__(self, worker: PolicyWorker) -> None:
        self._groups = [group for chunk in worker.trainer._data_parallel for group in chunk.bucket_groups]
        self.in_backward: list[bool] = []  # of each reduction
        self.left_apart: list[bool] = []  # of each step and bucket
        for group in self._groups:
            group.start_grad_sync = self.noting(group.start_grad_sync)

    def noting(self, start: Any) -> Any:
        def noted(*args: Any, **kwargs: Any) -> None:
            self.in_backward.append(torch._C._current_graph_task_id() >= 0)
            start(*args, **kwargs)

        return noted

    @property
    def num_steps(self) -> int:
        return len(self.left_apart) // len(self._groups)

    def after_step(self) -> None:
        self.left_apart += [not group.param_gather_dispatched for group in self._groups]

    def report(self) -> dict[str, Any]:
        return {
            "buckets": len(self._groups),
            "in_backward": self.in_backward,
            "left_apart": self.left_apart,
        }


def save(worker: PolicyWorker, folder: Path) -> None:
    worker.save(folder)
    reports: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(reports, worker.finish_save())
    if dist.get_rank() == 0:
        digests = {name: digest for report in reports for name, digest in report.items()}
        others = {name: digest_of(folder / name) for name in files_in(folder) if name not in digests}
        Manifest(step=worker.version, selection=None, files=digests | others).write(folder)
    dist.barrier()


def run(folder: Path, job: dict[str, Any], rank: int) -> None:
    config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(RunConfig), job["config"]))
    assert isinstance(config, RunConfig)
    worker = PolicyWorker(config, rank=rank, world_size=job["world_size"])
    worker.start("127.0.0.1", job["port"])
    batches = read_batches(folder, config.policy.data_parallel)
    reading, exchanges = Reading(worker), Exchanges(worker)

    def step() -> None:
        version = worker.version
        metrics = worker.train_step([replace(batch, version=version) for batch in batches[data_rank()]])
        exchanges.after_step()
        if metrics is not None:
            (folder / f"metrics-{exchanges.num_steps}.json").write_text(json.dumps(metrics))

    def read_all() -> None:
        trainer = worker.trainer
        assert trainer.reference is not None
        step()
        worker.begin_send(1, TransferMethod.gather)
        step()
        worker.sync_reference(2)
        reading.note("reference", trainer.reference.copies)
        step()
        worker.export(folder / "exported")
        step()
        save(worker, folder / "checkpoint")
        step()
        worker.serve_version(1)
        reading.note("served", trainer.model.parameters())
        worker.end_serving()
        reading.note("put back", trainer.model.parameters())
        step()
        reading.note("logprobs", trainer.forward_logprobs(batches[data_rank()]))

    read_all()
    worker.restore(folder / "checkpoint")
    step()
    worker.trainer.gather_weights()
    reading.note("restored", worker.trainer.model.parameters())
    save_file(reading.found, folder / f"read-{rank}.safetensors")
    (folder / f"exchanges-{rank}.json").write_text(json.dumps(exchanges.report()))
    worker.stop()


def main(folder: Path, rank: int) -> None:
    for path in sorted(folder.glob("*/job.json")):
        job = json.loads(path.read_text())
        if rank < job["world_size"]:
            run(path.parent, job, rank)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
