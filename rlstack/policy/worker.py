"""One rank of the policy, as the driver sees it. Ray, or a test, gives it a process of its own."""

from __future__ import annotations

import gc
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from rlstack.checkpoint.manifest import POLICY, Digest
from rlstack.config.deterministic import policy_environment
from rlstack.config.machine import Machine
from rlstack.config.schema import Precision, RunConfig, TransferMethod
from rlstack.config.validate_precision import policy_machine_problems, refuse
from rlstack.data.records import MicroBatch
from rlstack.losses.build import Loss, build_loss
from rlstack.model.architecture import Architecture
from rlstack.policy import checkpointing
from rlstack.policy.backend import on_gpu
from rlstack.policy.hf_export import export
from rlstack.policy.hf_io import load_weights
from rlstack.policy.model import build_model
from rlstack.policy.outlet import WeightOutlet, open_source
from rlstack.policy.parallel import close_parallel, data_rank, init_parallel, is_leader
from rlstack.policy.probe import probe_batches
from rlstack.policy.profiling import StepProfiler
from rlstack.policy.quantised import quantised_weights
from rlstack.policy.reference import follows_policy
from rlstack.policy.restoring import verify
from rlstack.policy.saving import BackgroundSave
from rlstack.policy.served import ServedWeights
from rlstack.policy.staleness import check_versions, max_age
from rlstack.policy.trainer import Trainer
from rlstack.rendezvous import connect_store, private_place, serve_store, store_in
from rlstack.telemetry.run_dir import PROFILE, folder_of
from rlstack.telemetry.timeline import span
from rlstack.transfer.negotiation import LayoutCache

_BYTES_PER_MIB = 1024**2


class PolicyWorker:
    """`serve` on rank 0, then `start` on every rank; the rest after that, on every rank alike."""

    def __init__(
        self, config: RunConfig, *, rank: int, world_size: int, own_loss: Loss | None = None
    ) -> None:
        """own_loss: what objective.loss stands for."""
        if config.policy.precision is Precision.fp32:
            # Transformer Engine multiplies in TF32 otherwise, whatever torch is set to, which moves logprobs
            # by more than the probe of a sync accepts (cublaslt_gemm.cu, CUBLAS_COMPUTE_32F_FAST_TF32).
            os.environ["NVIDIA_TF32_OVERRIDE"] = "0"
        os.environ.update(policy_environment(config))
        torch.use_deterministic_algorithms(config.run.deterministic)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        self._config = config
        self._own_loss = own_loss
        self._rank = rank
        self._world_size = world_size
        self._folder = Path(config.policy.model)
        self._store: dist.Store | None = None
        self._sources: dict[TransferMethod, WeightOutlet] = {}
        self._layouts = LayoutCache()
        self._save: BackgroundSave | None = None
        self._verified: Path | None = None  # a checkpoint's folder, until it is restored
        self._profiler = StepProfiler(config.telemetry, folder_of(config) / PROFILE, rank=rank)
        self._serving: int | None = None  # the version that the model holds instead of the policy's

    def serve(self, host: str | None) -> tuple[str, int | Path]:
        """On rank 0: open the rendezvous of the ranks, and say where, for start().

        host: loopback, for ranks that are all on this machine and meet at a file; None: they may be on
        several, and meet at a port of this node's address.
        """
        if host is not None:
            return host, private_place()
        import ray

        host = str(ray.util.get_node_ip_address())
        cluster, limit_s = self._config.cluster, self._config.policy.start_timeout_s
        store = serve_store(host, timeout_s=limit_s, port_range=cluster.port_range)
        self._store = store
        return host, store.port

    def start(self, host: str, where: int | Path) -> None:
        """Meet the other ranks where serve() said, build the model and the optimiser, load the weights.

        Raises ConfigError if the model's folder cannot be used, or this machine for its precision.
        """
        config = self._config
        refuse(policy_machine_problems(config.policy, Machine.detect().arithmetic))
        architecture = Architecture.from_folder(self._folder)
        init_parallel(
            config.policy,
            self._store or _store_at(host, where, timeout_s=config.policy.start_timeout_s),
            host=host,
            rank=self._rank,
            world_size=self._world_size,
            seed=config.run.seed,
        )
        loss = build_loss(config.objective, self._own_loss)
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
        self._served = ServedWeights(model, self.trainer.reference, config)

    @property
    def version(self) -> int:
        """Optimiser steps taken, skipped ones included."""
        return self.trainer.version

    def train_step(self, batches: Sequence[MicroBatch]) -> dict[str, float] | None:
        """One optimiser step; the metrics on one rank, None elsewhere.

        batches: of this data-parallel rank, at least one and as many as the others have; at least one example
            in all.

        Raises RuntimeError if they are of rollouts that are older than the schedule allows.
        """
        check_versions(
            (batch.version for batch in batches),
            policy_version=self.version,
            max_age=max_age(self._config.schedule),
        )
        with self._profiler.step(self.version + 1):
            return self.trainer.train_step(batches, before_update=self._finish_sending)

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
            self.trainer.gather_weights()
            self.trainer.reference.sync(version)

    def export(self, folder: Path) -> None:
        """Write the weights to `folder` for transformers; replaces it."""
        self.trainer.gather_weights()
        export(self.trainer.model, folder, source=self._folder)

    def open_transfer(self, host: str, port: int, *, method: TransferMethod, num_receivers: int) -> None:
        """Meet the engines' workers, `num_receivers` of them, at the store at (`host`, `port`).

        Every method can be open besides the others; opening one again ends what it had before.
        """
        self.close_transfer(method)
        transfer = self._config.transfer
        ends: dict[str, Any] = {
            "store_host": host,
            "store_port": port,
            "num_receivers": num_receivers,
            "bucket_bytes": transfer.bucket_mib * _BYTES_PER_MIB,
            "timeout_s": transfer.timeout_s,
            "backend": dist.get_backend(),
        }
        self._sources[method] = open_source(
            method, self.trainer.model, ends, channel=transfer.channel, cache=self._layouts
        )

    def close_transfer(self, method: TransferMethod) -> None:
        """Leave the engines' workers, those who still wait for something from here included."""
        if (source := self._sources.pop(method, None)) is not None:
            source.settle()
            del source
            gc.collect()  # the error of a round that failed refers to it, and to itself

    def begin_send(self, version: int, method: TransferMethod, receivers: list[int] | None = None) -> None:
        """Let the weights, which are `version`, go out; they stay as they are until fence().

        receivers: the workers that take part, counted over all engines; None: all.
        """
        held = self.version if self._serving is None else self._serving
        assert version == held, f"the policy is at version {held}, not {version}"
        self.trainer.gather_weights()
        self._served.take_over(version)
        self._sources[method].begin(version, receivers)

    def fence(self, method: TransferMethod) -> dict[str, float]:
        """Wait until what begin_send started has left; what the sender measured, {} on ranks without one."""
        return self._sources[method].fence()

    def probe(self, token_ids: Sequence[int]) -> tuple[float, ...] | None:
        """The logprobs of token_ids[1:], each given those before it; None but on the last stage's leader."""
        batches = probe_batches(token_ids, self._config.policy, version=self.version)
        logprobs = self.trainer.forward_logprobs(batches[data_rank()])
        return tuple(logprobs[0].tolist()) if logprobs and is_leader() else None

    def quantised_weights(self) -> list[str]:
        """Hugging Face names of the weights of this rank's stage that it multiplies with in FP8."""
        return sorted(quantised_weights(self.trainer.model))

    def serve_version(self, version: int) -> None:
        """Have the model hold `version`, which the engines had last, until end_serving(); no step meanwhile.

        Raises RuntimeError if its weights are not kept.
        """
        self._finish_sending()
        self.trainer.gather_weights()
        self._served.put_in_place(version, policy_version=self.version)
        self._serving = version

    def end_serving(self) -> None:
        """Have the model hold the policy's own weights again."""
        self._finish_sending()
        self._served.put_back()
        self._serving = None

    def save(self, folder: Path) -> None:
        """Take a snapshot and start to write it to `folder`/policy; training may go on."""
        assert self._save is None, "finish_save comes first"
        assert self._serving is None, "end_serving comes first"
        self.trainer.gather_weights()
        self._save = checkpointing.begin_save(self.trainer, self._served, self._config.policy, folder)

    def is_saved(self) -> bool:
        """Return True if finish_save() would not have to wait for this rank's disk."""
        return self._save is None or self._save.is_written()

    def finish_save(self) -> dict[str, Digest]:
        """Wait for what save() has begun; the digests of this rank's files, by their paths in the checkpoint.

        Raises RuntimeError, on all ranks, if one of them could not write.
        """
        assert self._save is not None, "save comes first"
        save, self._save = self._save, None
        digests = save.finish(timeout_s=self._config.checkpoint.timeout_s)
        return {f"{POLICY}/{name}": digest for name, digest in digests.items()}

    def verify(self, folder: Path) -> None:
        """Read every file of the policy in the checkpoint `folder`, each on one rank; restore() may follow.

        Raises CheckpointError on all ranks alike: see restoring.verify.
        """
        if self._verified != folder:
            verify(folder)
            self._verified = folder

    def restore(self, folder: Path) -> None:
        """Go on from the checkpoint `folder`, of any layout; it is verified, unless it has just been.

        Raises CheckpointError if it is damaged or of another model; see checkpointing.restore for what has
        been changed by then.
        """
        self._finish_sending()
        self.verify(folder)
        self._verified = None  # what it is when it is asked for again is not known
        checkpointing.restore(self.trainer, self._served, self._config.policy, folder)

    def release_memory(self) -> None:
        """Give the memory back that only torch's allocator holds, for another process on the same GPU."""
        gc.collect()
        if on_gpu():
            torch.cuda.empty_cache()

    def _finish_sending(self) -> None:
        """The shards of a reshard are sent from where they are, which the optimiser writes to."""
        if TransferMethod.reshard in self._sources:
            with span("fence", reason="sync"):
                self._sources[TransferMethod.reshard].settle()

    def stop(self) -> None:
        """Leave the process groups."""
        close_parallel()


def _store_at(host: str, where: int | Path, *, timeout_s: float) -> dist.Store:
    if isinstance(where, Path):
        return store_in(where, timeout_s=timeout_s)
    return connect_store(host, where, timeout_s=timeout_s)
