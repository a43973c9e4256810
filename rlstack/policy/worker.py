"""One rank of the policy, as the driver sees it. Ray, or a test, gives it a process of its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch.distributed as dist

from rlstack.config.schema import RunConfig, TransferMethod
from rlstack.data.packing import pack
from rlstack.data.records import MicroBatch, Prompt, Rollout, WeightedRollout
from rlstack.losses.build import build_loss
from rlstack.policy.architecture import Architecture
from rlstack.policy.hf_export import export
from rlstack.policy.hf_io import load_weights
from rlstack.policy.model import build_model
from rlstack.policy.outlet import WeightOutlet, open_source
from rlstack.policy.parallel import close_parallel, data_rank, init_parallel, is_leader
from rlstack.policy.reference import follows_policy
from rlstack.policy.staleness import check_versions, max_age
from rlstack.policy.trainer import Trainer
from rlstack.rendezvous import connect_store, serve_store
from rlstack.telemetry.timeline import span

_BYTES_PER_MIB = 1024**2


class PolicyWorker:
    """`serve` on rank 0, then `start` on every rank; the rest after that, on every rank alike."""

    def __init__(self, config: RunConfig, *, rank: int, world_size: int) -> None:
        self._config = config
        self._rank = rank
        self._world_size = world_size
        self._folder = Path(config.policy.model)
        self._store: dist.TCPStore | None = None
        self._sources: dict[TransferMethod, WeightOutlet] = {}

    def serve(self, host: str | None) -> tuple[str, int]:
        """On rank 0: open the rendezvous of the ranks on `host` (None: this node's address) and say where."""
        if host is None:
            import ray

            host = str(ray.util.get_node_ip_address())
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
        loss = build_loss(config.objective)
        model = build_model(
            architecture, config.policy, self._folder, entropy_gradient=loss.needs_entropy_gradient
        )
        load_weights(model, self._folder)
        self.trainer = Trainer(
            model,
            loss=loss,
            settings=config.optimizer,
            reference_follows=follows_policy(config.schedule),
        )

    @property
    def version(self) -> int:
        """Optimiser steps taken, skipped ones included."""
        return self.trainer.version

    def train_step(self, batches: Sequence[Sequence[MicroBatch]]) -> dict[str, float] | None:
        """One optimiser step on [data-parallel rank][micro-batch]; the metrics on one rank, None elsewhere.

        At least one micro-batch for each rank, and at least one example in all.

        Raises RuntimeError if they are of rollouts that are older than the schedule allows.
        """
        check_versions(
            (batch.version for of_rank in batches for batch in of_rank),
            policy_version=self.version,
            max_age=max_age(self._config.schedule),
        )
        return self.trainer.train_step(batches[data_rank()], before_update=self._finish_sending)

    def skip_step(self) -> None:
        """Count a step without examples."""
        self.trainer.skip_step()

    def scale_lr(self, factor: float) -> None:
        """Multiply the learning rate of all steps to come by `factor`."""
        self.trainer.scale_lr(factor)

    def sync_reference(self, version: int) -> None:
        """Make the current weights, which are `version`, the reference's."""
        assert version == self.version, f"the policy is at version {self.version}, not {version}"
        if self.trainer.reference is not None:
            self.trainer.reference.sync(version)

    def export(self, folder: Path) -> None:
        """Write the weights to `folder` for transformers; replaces it."""
        export(self.trainer.model, folder, source=self._folder)

    def open_transfer(self, host: str, port: int, *, method: TransferMethod, num_receivers: int) -> None:
        """Meet the engines' workers, `num_receivers` of them, at the store at (`host`, `port`).

        Every method can be open besides the others.
        """
        transfer = self._config.transfer
        ends: dict[str, Any] = {
            "store_host": host,
            "store_port": port,
            "num_receivers": num_receivers,
            "bucket_bytes": transfer.bucket_mib * _BYTES_PER_MIB,
            "timeout_s": transfer.timeout_s,
            "backend": dist.get_backend(),
        }
        self._sources[method] = open_source(method, self.trainer.model, ends, channel=transfer.channel)

    def begin_send(self, version: int, method: TransferMethod) -> None:
        """Let the weights, which are `version`, go out; they stay as they are until fence()."""
        assert version == self.version, f"the policy is at version {self.version}, not {version}"
        self._sources[method].begin(version)

    def fence(self, method: TransferMethod) -> dict[str, float]:
        """Wait until what begin_send started has left; what the sender measured, {} on ranks without one."""
        return self._sources[method].fence()

    def probe(self, token_ids: Sequence[int]) -> tuple[float, ...] | None:
        """The logprobs of token_ids[1:], each given those before it; None but on the last stage's leader."""
        first, rest = tuple(token_ids[:1]), tuple(token_ids[1:])
        rollout = Rollout(
            token_ids=rest,
            generator_logprobs=(0.0,) * len(rest),
            text="",
            finished=True,
            version=self.version,
        )
        prompt = Prompt(task="probe", row=0, problem="", token_ids=first)
        policy = self._config.policy
        batches = pack(
            [WeightedRollout(prompt=prompt, rollout=rollout, advantage=0.0)],
            data_parallel=policy.data_parallel,
            micro_batch_tokens=policy.micro_batch_tokens,
            version=self.version,
        )
        logprobs = self.trainer.forward_logprobs(batches[data_rank()])
        return tuple(logprobs[0].tolist()) if logprobs and is_leader() else None

    def _finish_sending(self) -> None:
        """The shards of a reshard are sent from where they are, which the optimiser writes to."""
        if TransferMethod.reshard in self._sources:
            with span("fence", reason="sync"):
                self._sources[TransferMethod.reshard].fence()

    def stop(self) -> None:
        """Leave the process groups."""
        close_parallel()
