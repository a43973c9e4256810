"""The reshard transfer as one of vLLM's weight transfer engines: the worker's side.

vLLM makes one per worker when it is started with `weight_transfer_config={"backend": "reshard"}` and drives
it through init_weight_transfer_engine, start_weight_update, update_weights and finish_weight_update. Updates
come as "begin" and "commit", between which the worker goes on generating with the old weights while the new
ones arrive beside them; "sync" is both at once.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch.distributed import PrefixStore, Store
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.utils.nccl import unpinned_nccl_env

from rlstack.config.schema import Landing, TransferChannel
from rlstack.rendezvous import connect_store
from rlstack.transfer.bake import Layout, bake
from rlstack.transfer.errors import LandingError, TransferError
from rlstack.transfer.group import Agreement
from rlstack.transfer.negotiation import LayoutCache
from rlstack.transfer.reshard import ReshardReceiver, published_shapes
from rlstack.transfer.scatter import Arrival, land_direct, land_staged, supports_direct


@dataclass
class ReshardInit(WeightTransferInitInfo):
    """Where the sides meet and who they are; plain data, because vLLM sends it to its workers."""

    store_host: str
    store_port: int
    num_sources: int  # trainer ranks
    first_receiver: int  # this engine's first worker, counted over all engines
    num_receivers: int
    bucket_bytes: int
    timeout_s: float
    landing: str = Landing.auto.value
    channel: str = TransferChannel.auto.value


@dataclass
class ReshardUpdate(WeightTransferUpdateInfo):
    version: int
    mode: str = "sync"  # sync | begin | commit
    receivers: list[int] | None = None  # those that take part, where it begins; None: all


class ReshardEngine(WeightTransferEngine[ReshardInit, ReshardUpdate]):
    """Receives exactly this worker's share of the weights and lands it."""

    init_info_cls = ReshardInit
    update_info_cls = ReshardUpdate
    supports_draft_weight_update = False  # the layout is that of one model

    layout: Layout
    stats: dict[str, float]  # of the last version that was landed

    _opened: ReshardReceiver | None = None
    _store: Store
    _agreement_in: Callable[..., Agreement]  # this worker's, in a store and with receivers
    _of_all: Agreement
    _agreement: Agreement  # of the round
    _direct: bool
    _coming: int | None = None  # the version that is arriving
    _cache: LayoutCache | None = None
    _baked: dict[str, tuple[int, ...]] | None = None  # the shapes that `layout` is for

    def init_transfer_engine(self, init_info: ReshardInit) -> None:
        """Work out this worker's share and meet the trainer ranks and the other workers.

        Done again, it ends what was there before, a round under way included.

        Raises TransferError if the trainer's weights do not fill the model, if `landing` is not possible with
        it, or if someone does not come in time.
        """
        info = init_info
        self._leave()
        store = connect_store(info.store_host, info.store_port, timeout_s=info.timeout_s)
        shapes = published_shapes(store, timeout_s=info.timeout_s)
        dtype = self.model_config.dtype
        assert isinstance(dtype, torch.dtype), "vLLM resolves it before it makes a worker"
        if self._baked != shapes:
            self.layout, self._baked = bake(self.model, shapes, dtype=dtype), shapes
        self._cache = self._cache or LayoutCache()
        self._direct = self._lands_directly(Landing(info.landing))
        receiver = info.first_receiver + self.parallel_config.rank
        self._agreement_in = partial(Agreement, receiver=receiver, timeout_s=info.timeout_s)
        self._store, self._of_all = store, self._agreement_in(store, receivers=range(info.num_receivers))
        with unpinned_nccl_env():  # which vLLM sets for its own communicators alone
            self._opened = ReshardReceiver(
                store_host=info.store_host,
                store_port=info.store_port,
                receiver=receiver,
                num_sources=info.num_sources,
                num_receivers=info.num_receivers,
                pieces=self.layout.pieces,
                dtypes=self.layout.dtypes,
                bucket_bytes=info.bucket_bytes,
                timeout_s=info.timeout_s,
                backend=self._backend(TransferChannel(info.channel)),
                device=self.device,
                cache=self._cache,
            )

    def start_weight_update(self) -> None:
        """Nothing: a round starts with the update that begins it."""

    def update_weights(self, update_info: dict[str, object]) -> None:
        """As vLLM's, which waits for an accelerator even where there is none."""
        self.receive_weights(self.parse_update_info(update_info))
        if self.device.type != "cpu":
            torch.accelerator.synchronize()

    def receive_weights(self, update_info: ReshardUpdate) -> None:
        """Begin or commit a version, or both.

        Raises TransferError with the old weights untouched if the version did not arrive whole at every
        worker of every engine; LandingError if replacing the weights failed midway.
        """
        if update_info.mode not in ("sync", "begin", "commit"):
            raise ValueError(f"mode: {update_info.mode}; accepted are sync, begin and commit")
        if update_info.mode != "commit":
            self._begin(update_info.version, update_info.receivers)
        if update_info.mode != "begin":
            self._commit(update_info.version)

    def finish_weight_update(self) -> None:
        """Nothing: the commit has landed everything."""

    def shutdown(self) -> None:
        """Nothing: vLLM ends the process."""

    @property
    def _receiver(self) -> ReshardReceiver:
        assert self._opened is not None, "init_transfer_engine comes first"
        return self._opened

    def _leave(self) -> None:
        """Give up connections and memory; both end with the last reference to them."""
        self._coming = None
        if self._opened is not None:
            self._opened.settle()
            self._opened = None
            gc.collect()  # the error of a round that failed refers to it, and to itself

    def _begin(self, version: int, receivers: list[int] | None) -> None:
        self._coming = version
        if receivers is None:
            self._agreement = self._of_all
        else:
            store = PrefixStore(f"version{version}", self._store)
            self._agreement = self._agreement_in(store, receivers=receivers)
        self._receiver.begin(version, receivers)

    def _commit(self, version: int) -> None:
        if version != self._coming:
            raise TransferError(f"version {version} was to be committed, but {self._coming} was begun")
        self._coming = None
        started = time.perf_counter()
        arrivals = self._arrivals(version)
        arrived = time.perf_counter()
        self._land(arrivals)
        self.stats = {
            **self._receiver.stats,
            "wait_s": arrived - started,
            "land_s": time.perf_counter() - arrived,
            "verified_version": float(version),
        }

    def _arrivals(self, version: int) -> list[Arrival]:
        """All that came for this worker, once every worker has all that came for it."""
        arrivals: list[Arrival] = []
        trouble: Exception | None = None
        try:
            arrivals = list(self._receiver.finish(version))
        except Exception as error:  # whatever it is, the other workers must hear of it
            trouble = error
        self._agreement.reach(trouble, what=f"version {version}")
        return arrivals

    def _land(self, arrivals: list[Arrival]) -> None:
        try:
            if self._direct:
                land_direct(self.model, arrivals)
            else:
                land_staged(
                    self.model, self.layout, arrivals, model_config=self.model_config, device=self.device
                )
        except Exception as error:  # whatever it is, the model is now neither the old one nor the new one
            raise LandingError(f"landing failed midway: {error}") from error

    def _backend(self, channel: TransferChannel) -> str:
        if channel is TransferChannel.ipc:
            return "ipc"
        return "nccl" if self.device.type == "cuda" else "gloo"

    def _lands_directly(self, landing: Landing) -> bool:
        if landing is Landing.staged:
            return False
        objection = supports_direct(self.model, self.layout.tensors)
        if objection and landing is Landing.direct:
            raise TransferError(f"transfer.landing=direct: {objection}; use staged or auto")
        return objection is None
