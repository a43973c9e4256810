"""One of the ranks that train a model in many layouts; a program, because the ranks are real processes.

python factorisation_job.py FOLDER RANK: as policy_job.py, but leaves metrics and the whole model only, twice.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from safetensors.torch import save_file

from rlstack.config.parallel import data_parallel_rank
from rlstack.config.schema import RunConfig
from rlstack.policy.hf_io import model_tensors
from rlstack.policy.parallel import data_rank
from rlstack.policy.worker import PolicyWorker
from tests.distributed.policy_job import read_batches


def run(folder: Path, job: dict[str, Any], rank: int) -> None:
    still = {"schedule": {"sync_interval": None, "reference_sync": "never"}}
    config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(RunConfig), still, job["config"]))
    assert isinstance(config, RunConfig)
    worker = PolicyWorker(config, rank=rank, world_size=job["world_size"])
    worker.start("127.0.0.1", job["port"])
    assert data_rank() == data_parallel_rank(rank, config.policy)
    batches = read_batches(folder, config.policy.data_parallel)
    for step in range(job["num_steps"]):
        metrics = worker.train_step(batches[data_rank()])
        if metrics is not None:
            (folder / f"metrics-{step}.json").write_text(json.dumps(metrics))
    worker.export(folder / "exported")
    gathered = {name: tensor.clone() for name, tensor in model_tensors(worker.trainer.model)}
    if rank == 0:
        save_file(gathered, folder / "gathered.safetensors")
    worker.stop()


def main(folder: Path, rank: int) -> None:
    for path in sorted(folder.glob("*/job.json")):
        job = json.loads(path.read_text())
        if rank < job["world_size"]:
            run(path.parent, job, rank)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
