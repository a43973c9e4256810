"""One policy on whatever this process can see: Transformer Engine's layers on a GPU, the local ones without.

python -m tests.gpu.layers_job FOLDER NAME [CHECKPOINT]: the policy of FOLDER/model takes a step and is saved
in FOLDER/NAME, or goes on from CHECKPOINT; what it makes of a few tokens is left in FOLDER/NAME.json, and the
kinds of its layers.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from rlstack.checkpoint.store import CheckpointStore
from rlstack.collectives import SECRET, new_secret
from rlstack.config.schema import Checkpoint, Precision, RunConfig
from rlstack.data.packing import pack
from rlstack.data.records import Prompt, Rollout, TrainingExample
from rlstack.policy.worker import PolicyWorker

PROBE = tuple(range(3, 33))


def worker_of(folder: Path) -> PolicyWorker:
    config = RunConfig()
    config.policy.model = str(folder / "model")
    config.policy.precision = Precision.bf16
    config.optimizer.lr = 2e-4
    worker = PolicyWorker(config, rank=0, world_size=1)
    os.environ[SECRET] = new_secret()
    worker.start(*worker.serve("127.0.0.1"))
    return worker


def take_step(worker: PolicyWorker) -> None:
    prompt = Prompt(task="t", row=0, problem="", token_ids=PROBE[:5])
    chosen, rejected = (
        Rollout(token_ids=ids, generator_logprobs=(0.0,) * len(ids), text="", finished=True, version=0)
        for ids in (PROBE[5:20], PROBE[12:])
    )
    pair = TrainingExample.of_pair(prompt=prompt, chosen=chosen, rejected=rejected)
    worker.train_step(pack([pair], data_parallel=1, micro_batch_tokens=512, version=0)[0])


def main(folder: Path, name: str, checkpoint: Path | None) -> None:
    worker = worker_of(folder)
    before = worker.probe(PROBE)
    if checkpoint is None:
        take_step(worker)
        store = CheckpointStore(folder / name, Checkpoint())
        worker.save(store.draft(worker.version))
        store.commit(worker.version, None, worker.finish_save())
    else:
        worker.restore(checkpoint)
    kinds = sorted({type(module).__name__ for module in worker.trainer.model.modules()})
    found = {"before": before, "after": worker.probe(PROBE), "kinds": kinds}
    (folder / f"{name}.json").write_text(json.dumps(found))
    worker.stop()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]) if len(sys.argv) > 3 else None)
