"""One rank of policies that meet a value that is not finite; a program, because the ranks are real processes.

python -m tests.distributed.non_finite_job FOLDER RANK: as policy_job.py, with one more key of a RunConfig's
mapping in job.json, `spoil`: {} or {"rank", "value", "what"}. Every policy takes its steps on the same
micro-batches, and with a `spoil` one more after the first, in which `what` of that rank is `value`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from rlstack.config.schema import RunConfig
from rlstack.losses.types import LossInputs, LossOutput
from rlstack.policy.hf_io import stage_tensors
from rlstack.policy.parallel import data_rank, stage
from rlstack.policy.trainer import Trainer
from rlstack.policy.worker import PolicyWorker
from tests.distributed.policy_job import read_batches, save_stage


@contextmanager
def spoilt(trainer: Trainer, what: str, value: float) -> Iterator[None]:
    """Within, the first rows of a weight's gradient, a norm's gradient or the loss is `value`."""
    if what == "loss":  # and the gradient is finite
        loss = trainer._loss

        class Spoilt:
            needs_reference, needs_entropy_gradient = loss.needs_reference, loss.needs_entropy_gradient

            def __call__(self, inputs: LossInputs) -> LossOutput:
                output = loss(inputs)
                return replace(output, loss=output.loss + value)

        trainer._loss = Spoilt()
        yield
        trainer._loss = loss
        return
    finalize: Callable[..., Any] = trainer.model.config.finalize_model_grads_func
    dim = {"weight": 2, "norm": 1}[what]
    parameter = next(p for p in trainer.model.parameters() if p.dim() == dim)

    def spoil(*args: Any, **kwargs: Any) -> Any:
        parameter.main_grad.view(-1)[0] = value
        return finalize(*args, **kwargs)

    trainer.model.config.finalize_model_grads_func = spoil
    yield
    trainer.model.config.finalize_model_grads_func = finalize


def held(trainer: Trainer) -> dict[str, torch.Tensor]:
    """The weights, and the optimiser's moments, of this rank."""
    tensors = {f"weight/{name}": p for name, p in trainer.model.named_parameters()}
    for index, moments in enumerate(trainer.optimizer.optimizer.state.values()):
        tensors |= {f"{name}/{index}": t for name, t in moments.items() if torch.is_tensor(t)}
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def run(folder: Path, job: dict[str, Any], rank: int) -> None:
    spoil = job["config"].pop("spoil")
    offline = {"schedule": {"sync_interval": None}}  # the rollouts stay those of version 0
    config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(RunConfig), offline, job["config"]))
    assert isinstance(config, RunConfig)
    worker = PolicyWorker(config, rank=rank, world_size=job["world_size"])
    worker.start("127.0.0.1", job["port"])
    trainer = worker.trainer
    batches = read_batches(folder, config.policy.data_parallel)
    reports = [worker.train_step(batches[data_rank()])]
    if spoil:
        before = held(trainer)
        if spoil["rank"] == rank:
            with spoilt(trainer, spoil["what"], float(spoil["value"])):
                reports.append(worker.train_step(batches[data_rank()]))
        else:
            reports.append(worker.train_step(batches[data_rank()]))
        after = held(trainer)
        assert before.keys() == after.keys()
        assert any(name.startswith("exp_avg") for name in before)
        assert all(torch.equal(before[name], after[name]) for name in before), f"rank {rank} took the step"
    reports += [worker.train_step(batches[data_rank()]) for _ in range(job["num_steps"] - 1)]
    assert worker.version == len(reports)
    if reports[0] is not None:
        (folder / "metrics.json").write_text(json.dumps(reports))
    save_stage(stage_tensors(trainer.model), folder / f"weights-{stage()}.safetensors")
    worker.stop()


def main(folder: Path, rank: int) -> None:
    for path in sorted(folder.glob("*/job.json")):
        run(path.parent, json.loads(path.read_text()), rank)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
