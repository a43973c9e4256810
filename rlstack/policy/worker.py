"""One rank of the policy, as the driver sees it. Ray, or a test, gives it a process of its own."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path

import torch.distributed as dist

from rlstack.config.schema import RunConfig
from rlstack.data.records import MicroBatch
from rlstack.losses.build import build_loss
from rlstack.policy.architecture import Architecture
from rlstack.policy.hf_export import export
from rlstack.policy.hf_io import load_weights, stage_tensors, tensor_specs
from rlstack.policy.model import build_model
from rlstack.policy.parallel import close_parallel, data_rank, init_parallel, is_leader, num_stages, stage
from rlstack.policy.trainer import Trainer
from rlstack.rendezvous import connect_store, serve_store
from rlstack.transfer.gather import GatherSender

_BYTES_PER_MIB = 1024**2


class PolicyWorker:
    """`serve` on rank 0, then `start` on every rank; the rest after that, on every rank alike."""

    def __init__(self, config: RunConfig, *, rank: int, world_size: int) -> None:
        self._config = config
        self._rank = rank
        self._world_size = world_size
        self._folder = Path(config.policy.model)
        self._store: dist.TCPStore | None = None
        self._sender: GatherSender | None = None

    def serve(self, host: str | None) -> tuple[str, int]:
        """On rank 0: open the rendezvous of the ranks on `host` (None: this node's address) and say where."""
        host = host or socket.gethostbyname(socket.gethostname())
        self._store = serve_store(host, timeout_s=self._config.policy.start_timeout_s)
        return host, self._store.port

    def start(self, host: str, port: int) -> None:
        """Meet the other ranks, build the model and the optimiser, load the weights.

        Raises ConfigError if the model's folder cannot be used.
        """
        config = self._config
        architecture = Architecture.from_folder(self._folder)
        store = self._store or connect_store(host, port, timeout_s=config.policy.start_timeout_s)
        init_parallel(
            config.policy,
            store,
            host=host,
            rank=self._rank,
            world_size=self._world_size,
            seed=config.run.seed,
        )
        model = build_model(architecture, config.policy, self._folder)
        load_weights(model, self._folder)
        self.trainer = Trainer(model, loss=build_loss(config.objective), settings=config.optimizer)

    @property
    def version(self) -> int:
        """Optimiser steps taken, skipped ones included."""
        return self.trainer.version

    def train_step(self, batches: Sequence[Sequence[MicroBatch]]) -> dict[str, float] | None:
        """One optimiser step on [data-parallel rank][micro-batch]; the metrics on one rank, None elsewhere.

        At least one micro-batch for each rank, and at least one example in all.
        """
        return self.trainer.train_step(batches[data_rank()])

    def skip_step(self) -> None:
        """Count a step without examples."""
        self.trainer.skip_step()

    def sync_reference(self, version: int) -> None:
        """Make the current weights, which are `version`, the reference's."""
        assert version == self.version, f"the policy is at version {self.version}, not {version}"
        if self.trainer.reference is not None:
            self.trainer.reference.sync(version)

    def export(self, folder: Path) -> None:
        """Write the weights to `folder` for transformers; replaces it."""
        export(self.trainer.model, folder, source=self._folder)

    def open_transfer(self, host: str, port: int, num_receivers: int) -> None:
        """Meet the engines' workers, `num_receivers` of them, at the store at (`host`, `port`)."""
        if data_rank() != 0:
            return
        model, transfer = self.trainer.model, self._config.transfer
        self._sender = GatherSender(
            store_host=host,
            store_port=port,
            stage=stage(),
            num_stages=num_stages(),
            num_receivers=num_receivers,
            is_leader=is_leader(),
            specs=tensor_specs(
                model.architecture, stage=stage(), num_stages=num_stages(), dtype=model.config.params_dtype
            ),
            bucket_bytes=transfer.bucket_mib * _BYTES_PER_MIB,
            timeout_s=transfer.timeout_s,
            backend=dist.get_backend(),
        )

    def send_weights(self, version: int) -> dict[str, float]:
        """Send the weights, which are `version`; what the sender measured, or {} on ranks that have none.

        Collective over the tensor-parallel ranks of the first data-parallel rank.
        """
        assert version == self.version, f"the policy is at version {self.version}, not {version}"
        if data_rank() != 0:
            return {}
        assert self._sender is not None, "open_transfer comes first"
        return self._sender.send(stage_tensors(self.trainer.model), version=version)

    def stop(self) -> None:
        """Leave the process groups."""
        close_parallel()
