"""One rank of a policy under test; a program, because the ranks are real processes.

python policy_job.py FOLDER RANK: every folder in FOLDER with a job.json is one policy, started and stopped in
this process. It holds batches-<data-parallel rank>-<index>.npz too, and takes the results.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file

from rlstack.config.schema import Fp8Recipe, Precision, RunConfig
from rlstack.data.records import MicroBatch
from rlstack.losses.build import build_loss
from rlstack.policy.hf_io import stage_tensors
from rlstack.policy.parallel import data_rank, is_leader, num_stages, stage
from rlstack.policy.trainer import Trainer
from rlstack.policy.worker import PolicyWorker
from rlstack.telemetry import timeline


def read_batches(folder: Path, num_ranks: int) -> list[list[MicroBatch]]:
    def read(path: Path) -> MicroBatch:
        arrays = dict(np.load(path))
        numbers = ("num_examples", "num_zero_examples", "version")
        return MicroBatch(**arrays | {name: int(arrays[name]) for name in numbers})

    return [
        [read(path) for path in sorted(folder.glob(f"batches-{rank}-*.npz"))] for rank in range(num_ranks)
    ]


def save_stage(tensors: Iterable[tuple[str, torch.Tensor]], path: Path) -> None:
    """Called on every rank of the stage: making whole tensors is a collective."""
    whole = {name: tensor.clone() for name, tensor in tensors}
    if is_leader():
        save_file(whole, path)


def gradients(trainer: Trainer) -> Iterable[tuple[str, torch.Tensor]]:
    """The accumulated gradients under the names of the weights."""
    parameters = list(trainer.model.parameters())
    weights = [parameter.data for parameter in parameters]
    for parameter in parameters:
        # In the weight's precision: with another one autograd would forget who adds up the gradients.
        parameter.data = parameter.main_grad.to(parameter.dtype)
    yield from stage_tensors(trainer.model)
    for parameter, weight in zip(parameters, weights, strict=True):
        parameter.data = weight


def run(folder: Path, job: dict[str, Any], rank: int) -> None:
    # Unless the job says otherwise, the reference stays at version 0, of which the rollouts are.
    still = {"schedule": {"sync_interval": None, "reference_sync": "never"}}
    config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(RunConfig), still, job["config"]))
    assert isinstance(config, RunConfig)
    worker = PolicyWorker(config, rank=rank, world_size=job["world_size"])
    worker.start("127.0.0.1", job["port"])
    trainer = worker.trainer
    keeps_reference = build_loss(config.objective).needs_reference and config.schedule.reference_sync != 1
    assert (trainer.reference is not None) == keeps_reference
    batches = read_batches(folder, config.policy.data_parallel)
    last = stage() == num_stages() - 1 and is_leader()

    save_stage(stage_tensors(trainer.model), folder / f"initial-{stage()}.safetensors")
    logprobs = trainer.forward_logprobs(batches[data_rank()])
    if last:
        save_file({str(i): tensor for i, tensor in enumerate(logprobs)}, folder / "logprobs.safetensors")
    for step in range(job["num_steps"]):
        timeline.take()
        metrics = worker.train_step(batches[data_rank()])
        (folder / f"spans-{step}-{rank}.json").write_text(json.dumps(timeline.take()))
        assert (metrics is not None) == last
        if last:
            (folder / f"metrics-{step}.json").write_text(json.dumps(metrics))
        if config.policy.data_parallel == config.policy.context_parallel == 1:  # otherwise sums are in parts
            save_stage(gradients(trainer), folder / f"gradients-{step}-{stage()}.safetensors")
            save_stage(stage_tensors(trainer.model), folder / f"weights-{step}-{stage()}.safetensors")
        if config.schedule.reference_sync != "never":
            worker.sync_reference(step + 1)
    # Scales of FP8 that steps before have left change what the same weights come to.
    has_history = config.policy.precision is Precision.fp8 and config.policy.fp8.recipe is Fp8Recipe.delayed
    if trainer.reference is not None and trainer.reference.version == 0 and not has_history:
        with trainer.reference.in_place():
            swapped = trainer.forward_logprobs(batches[data_rank()])
        assert all(torch.equal(now, then) for now, then in zip(swapped, logprobs, strict=True))
    worker.export(folder / "exported")
    worker.stop()


def main(folder: Path, rank: int) -> None:
    for path in sorted(folder.glob("*/job.json")):
        run(path.parent, json.loads(path.read_text()), rank)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
