"""One rank of policies whose memory is counted; a program, because the ranks are real processes.

python -m tests.distributed.memory_job FOLDER RANK: as policy_job.py, but each policy leaves memory-RANK.json:
bytes that megatron-core allocated, the most that a training step held for its backward passes, and with a
second step (num_steps) the most that it allocated in all.
"""

from __future__ import annotations

import json
import sys
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch.profiler import ProfilerActivity, profile

from rlstack.config.schema import RunConfig
from rlstack.policy.backend import ShardedTensor, ShardedTensorFactory
from rlstack.policy.checkpoint_state import sharded_optimizer
from rlstack.policy.parallel import data_rank, stage
from rlstack.policy.trainer import Trainer
from rlstack.policy.worker import PolicyWorker
from tests.distributed.policy_job import read_batches


class _Saved:
    """A tensor that autograd keeps, known by its storage for as long as it does."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor


class SavedBytes:
    """A context: the most bytes saved for backward passes at one time, each storage counted once."""

    def __init__(self, ignored: Iterable[torch.Tensor]) -> None:
        self._ignored = {tensor.untyped_storage().data_ptr() for tensor in ignored}
        self._held: Counter[int] = Counter()
        self._now = 0
        self.peak = 0

    def __enter__(self) -> SavedBytes:
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._keep, lambda saved: saved.tensor)
        self._hooks.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._hooks.__exit__(*error)

    def _keep(self, tensor: torch.Tensor) -> _Saved:
        saved, storage = _Saved(tensor), tensor.untyped_storage()
        if storage.data_ptr() not in self._ignored:
            self._count(storage.data_ptr(), storage.nbytes(), +1)
            weakref.finalize(saved, self._count, storage.data_ptr(), storage.nbytes(), -1)
        return saved

    def _count(self, address: int, num_bytes: int, change: int) -> None:
        before = self._held[address] > 0
        self._held[address] += change
        self._now += num_bytes * ((self._held[address] > 0) - before)
        self.peak = max(self.peak, self._now)


def allocated(trainer: Trainer) -> dict[str, int]:
    """Bytes of parameters, gradients, the optimiser's state and the reference."""
    model, optimizer = trainer.model, trainer.optimizer
    parameters = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    groups = optimizer.optimizer.param_groups
    # In fp32 the optimiser's parameters are windows of the model's own.
    main = [p for g in groups for p in g["params"] if p.untyped_storage().data_ptr() not in parameters]
    moments = [t for s in optimizer.optimizer.state.values() for t in s.values() if torch.is_tensor(t)]
    reference = trainer.reference.copies if trainer.reference else []
    buffers = [buffer for chunk in trainer._data_parallel for buffer in chunk.buffers]
    return {
        "elements": sum(parameter.numel() for parameter in model.parameters()),
        "parameters": sum(buffer.param_data.untyped_storage().nbytes() for buffer in buffers),
        "gradients": sum(buffer.grad_data.untyped_storage().nbytes() for buffer in buffers),
        "optimiser": sum(tensor.numel() * tensor.element_size() for tensor in [*main, *moments]),
        "reference": sum(tensor.numel() * tensor.element_size() for tensor in reference),
    }


def checkpoint_bytes(trainer: Trainer) -> int:
    """Of the optimiser's state for this rank's weights, as it goes into a checkpoint. Collective."""

    def tensors(state: Any) -> Iterator[torch.Tensor]:
        if isinstance(state, dict | list | tuple):
            for part in state.values() if isinstance(state, dict) else state:
                yield from tensors(part)
        elif isinstance(state, ShardedTensor | ShardedTensorFactory):
            yield state.data

    state = sharded_optimizer(trainer.optimizer, trainer.model)
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage() for tensor in tensors(state)}
    return sum(storage.nbytes() for storage in storages.values())


def peak_bytes(call: Callable[[], object]) -> int:
    """The most that torch holds at one time of what it allocates within `call`."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        call()
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    changes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return max(accumulate(changes, initial=0))


def run(folder: Path, job: dict[str, Any], rank: int) -> None:
    offline = {"schedule": {"sync_interval": None}}  # the rollouts stay those of version 0
    config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(RunConfig), offline, job["config"]))
    assert isinstance(config, RunConfig)
    worker = PolicyWorker(config, rank=rank, world_size=job["world_size"])
    worker.start("127.0.0.1", job["port"])
    trainer = worker.trainer
    batches = read_batches(folder, config.policy.data_parallel)
    kept = trainer.reference.copies if trainer.reference else []
    with SavedBytes([*trainer.model.parameters(), *kept]) as saved:
        worker.train_step(batches[data_rank()])
    report = allocated(trainer) | {"stage": stage(), "saved": saved.peak}
    report["checkpoint"] = checkpoint_bytes(trainer)
    if job["num_steps"] > 1:
        report["peak"] = peak_bytes(lambda: worker.train_step(batches[data_rank()]))
    (folder / f"memory-{rank}.json").write_text(json.dumps(report))
    worker.stop()


def main(folder: Path, rank: int) -> None:
    for path in sorted(folder.glob("*/job.json")):
        run(path.parent, json.loads(path.read_text()), rank)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
