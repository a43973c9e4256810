"""One rank of a policy that is saved, or restored, in the middle of its steps; see policy_job.py.

python checkpoint_job.py FOLDER RANK: beside job.json, every folder in FOLDER with a checkpoint.json is one
policy. `save_at` and `restore` say what it does, `trouble` what happens to its disk, `refused` which
checkpoints it tries first, `exchanged` where the files are that replace a checkpoint's once it is checked.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
from omegaconf import OmegaConf

from rlstack.checkpoint import manifest
from rlstack.checkpoint.store import CheckpointStore
from rlstack.config.schema import Checkpoint, RunConfig, TransferMethod
from rlstack.policy import saving
from rlstack.policy.backend import dist_checkpointing, get_cuda_rng_tracker
from rlstack.policy.hf_io import stage_tensors
from rlstack.policy.parallel import data_rank, stage
from rlstack.policy.worker import PolicyWorker
from tests.distributed.policy_job import read_batches, save_stage


class NoEngines:
    """A transfer that nobody listens to."""

    def begin(self, version: int, receivers: Sequence[int] | None = None) -> None:
        pass

    def fence(self) -> dict[str, float]:
        return {}


class Disk:
    """Holds the writing up until `go_on`, so that it is under way during a step, or ends it badly."""

    def __init__(self, trouble: str | None, rank: int) -> None:
        self._trouble, self._rank, self._writes = trouble, rank, 0
        self.go_on = threading.Event()
        self._write = saving._HashingStream.write
        saving._HashingStream.write = lambda stream, data: self.write(stream, data)  # type: ignore[method-assign]

    def write(self, stream: Any, data: Any) -> int:
        self._writes += 1
        assert self.go_on.wait(timeout=100)
        if self._writes > 5 and self._trouble == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if self._writes > 5 and self._trouble == "full" and self._rank == 1:
            raise OSError("no space left on device")
        return self._write(stream, data)

    def close(self) -> None:
        saving._HashingStream.write = self._write  # type: ignore[method-assign]


class Run:
    """The steps of one policy, with syncs to engines that are not there."""

    def __init__(self, folder: Path, rank: int) -> None:
        job = json.loads((folder / "job.json").read_text())
        self.plan = json.loads((folder / "checkpoint.json").read_text())
        config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(RunConfig), job["config"]))
        assert isinstance(config, RunConfig)
        self.config, self.folder, self.rank, self.num_steps = config, folder, rank, job["num_steps"]
        self.worker = PolicyWorker(config, rank=rank, world_size=job["world_size"])
        self.worker.start("127.0.0.1", job["port"])
        self.worker._sources = {TransferMethod.gather: NoEngines()}
        self.batches = read_batches(folder, config.policy.data_parallel)
        self.checkpoint = Path(self.plan["restore"]) if "restore" in self.plan else None

    def steps(self, *, until: int) -> None:
        worker = self.worker
        while worker.version < until:
            version = worker.version
            if version == 1:
                worker.skip_step()
            else:
                batches = [[replace(batch, version=version) for batch in share] for share in self.batches]
                metrics = worker.train_step(batches[data_rank()])
                if metrics is not None:
                    (self.folder / f"metrics-{version}.json").write_text(json.dumps(metrics))
            if worker.version % (self.config.schedule.sync_interval or 10**9) == 0:
                if self.config.schedule.reference_sync == "with_generator":
                    worker.sync_reference(worker.version)
                worker.begin_send(worker.version, TransferMethod.gather)
            if worker.version == 2:
                worker.scale_lr(0.5)
            self.leave_weights(f"weights-{version}")

    def leave_weights(self, name: str) -> None:
        save_stage(stage_tensors(self.worker.trainer.model), self.folder / f"{name}-{stage()}.safetensors")

    def leave_copies(self) -> None:
        """What the reference and the engines have, and what the random generators come up with."""
        reference = self.worker.trainer.reference
        assert reference is not None
        with reference.in_place():
            self.leave_weights("reference")
        version = min(2, self.worker.version)
        self.worker.serve_version(version)
        self.leave_weights("served")
        self.worker.begin_send(version, TransferMethod.gather)
        self.worker.end_serving()
        self.leave_weights("policy")
        with get_cuda_rng_tracker().fork():
            tracked = torch.rand(3).tolist()
        draws = {"draws": torch.rand(3).tolist(), "tracked": tracked}
        (self.folder / f"draws-{self.rank}.json").write_text(json.dumps(draws))

    def save(self, store: CheckpointStore) -> None:
        """Take steps while it is written."""
        draft = [store.draft(self.worker.version) if self.rank == 0 else None]
        dist.broadcast_object_list(draft)
        assert draft[0] is not None
        saved = self.worker.version
        is_last = saved == self.plan["save_at"][-1]
        disk = Disk(self.plan.get("trouble") if is_last else None, self.rank)
        self.worker.save(draft[0])
        self.leave_copies()
        self.steps(until=saved + 1)
        assert not self.worker.is_saved()
        disk.go_on.set()
        reports: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(reports, self.worker.finish_save())
        disk.close()
        assert self.worker.is_saved()
        if self.rank == 0:
            digests = {name: digest for report in reports for name, digest in report.items()}
            store.commit(saved, None, digests)

    def restore(self, checkpoint: Path) -> None:
        for refused in map(Path, self.plan.get("refused", [])):
            self.refuse(refused)
        if "exchanged" in self.plan:
            exchange_when_loaded(Path(self.plan["exchanged"]), checkpoint / "policy")
        with mock.patch.object(manifest, "digest_of", side_effect=manifest.digest_of) as read:
            self.worker.verify(checkpoint)
            self.worker.restore(checkpoint)
        names = [str(call.args[0].relative_to(checkpoint)) for call in read.call_args_list]
        (self.folder / f"read-{self.rank}.json").write_text(json.dumps(names))
        assert checkpoint.name == f"step-{self.worker.version:08d}"
        self.leave_copies()

    def refuse(self, checkpoint: Path) -> None:
        """Leave the error of a checkpoint that is refused, and a file if weights have changed."""
        before = [tensor.clone() for tensor in self.worker.trainer.model.parameters()]
        try:
            self.worker.restore(checkpoint)
        except BaseException as error:  # torch's is no Exception
            message = f"{type(error).__name__}: {error}"
            (self.folder / f"refused-{checkpoint.name}-{self.rank}.txt").write_text(message)
        after = self.worker.trainer.model.parameters()
        if not all(torch.equal(then, now) for then, now in zip(before, after, strict=True)):
            (self.folder / f"changed-{checkpoint.name}-{self.rank}").touch()


def exchange_when_loaded(source: Path, target: Path) -> None:
    """Have the files of `source` copied to `target` when megatron-core begins to load, once."""
    load = dist_checkpointing.load

    def exchange_and_load(*arguments: Any, **options: Any) -> Any:
        shutil.copytree(source, target, dirs_exist_ok=True)
        dist_checkpointing.load = load
        return load(*arguments, **options)

    dist_checkpointing.load = exchange_and_load


def run(folder: Path, rank: int) -> None:
    it = Run(folder, rank)
    if it.checkpoint is None:
        store = CheckpointStore(folder / "checkpoints", Checkpoint())
        # Whatever number the generators are at, it has to come back.
        torch.rand(rank + 1)
        for step in it.plan["save_at"]:
            it.steps(until=step)
            try:
                it.save(store)
            except RuntimeError as error:
                assert it.plan.get("trouble") == "full", error
                (folder / f"failed-{rank}.txt").write_text(str(error))
    else:
        it.restore(it.checkpoint)
    it.steps(until=it.num_steps)
    it.worker.stop()


def main(folder: Path, rank: int) -> None:
    for path in sorted(folder.glob("*/checkpoint.json")):
        run(path.parent, rank)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
