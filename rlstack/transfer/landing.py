"""Where the weights land: methods that vLLM mixes into its own worker class (`worker_extension_cls`).

They run in the worker's process and are called by name through `LLM.collective_rpc` with plain numbers and
strings: callables would need vLLM's insecure serialisation. Everything is received and verified before the
model is touched, since a failure in the middle of vLLM's reload leaves parameters without storage.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Concatenate, ParamSpec

import torch

from rlstack.config.weight_index import BUFFERS, OUTPUT_HEAD, weight_files
from rlstack.transfer.errors import LandingError, TransferError
from rlstack.transfer.gather import GatherReceiver
from rlstack.transfer.layout import encode
from rlstack.transfer.quantised import quantised_weights
from rlstack.transfer.scatter import repack_tied_weights

P = ParamSpec("P")
Answer = dict[str, Any]  # error (None, or its text), fatal (the engine must not serve any more), figures


def answered(
    method: Callable[Concatenate[WeightLanding, P], Mapping[str, float | str]],
) -> Callable[Concatenate[WeightLanding, P], Answer]:
    """Make `method` return its error instead of raising it.

    vLLM 0.32 stops at the first worker that raises and leaves the answers of the others in their queues,
    where the next call takes them for its own (vllm/v1/executor/multiproc_executor.py, collective_rpc).
    """

    @functools.wraps(method)
    def call(self: WeightLanding, *args: P.args, **kwargs: P.kwargs) -> Answer:
        try:
            return {"error": None, "fatal": False, **method(self, *args, **kwargs)}
        except Exception as error:
            logging.getLogger(__name__).exception("engine worker %d: %s", self.rank, method.__name__)
            return {"error": f"{type(error).__name__}: {error}", "fatal": isinstance(error, LandingError)}

    return call


class WeightLanding:
    """Named with a prefix, because vLLM refuses an extension whose names its worker already has."""

    # Of vLLM's worker:
    rank: int  # within the engine
    device: torch.device
    model_config: Any
    model_runner: Any
    reload_weights: Any
    weight_transfer_engine: Any
    init_weight_transfer_engine: Any
    start_weight_update: Any
    update_weights: Any
    finish_weight_update: Any

    _rlstack_receivers: dict[str, GatherReceiver]  # by method

    @answered
    def rlstack_open_reshard(self, init_info: dict[str, Any]) -> dict[str, float]:
        """Meet the trainer's ranks; `init_info` has the fields of ReshardInit."""
        self.init_weight_transfer_engine(init_info)
        return {}

    @answered
    def rlstack_layout(self) -> dict[str, str]:
        """The worker's share of the weights, as plan.encode writes it, once the transfer is open."""
        return {"layout": encode(self.weight_transfer_engine.layout.pieces)}

    @answered
    def rlstack_quantised(self) -> dict[str, str]:
        """The names of the weights that the worker multiplies with in FP8, with spaces between them."""
        return {"names": " ".join(sorted(quantised_weights(self.model_runner.get_model())))}

    @answered
    def rlstack_begin_reshard(self, version: int, receivers: list[int] | None) -> dict[str, float]:
        """Let `version` come in, at these `receivers` or at all (None); returns at once."""
        self._rlstack_update(version, "begin", receivers)
        return {}

    @answered
    def rlstack_commit_reshard(self, version: int) -> dict[str, float]:
        """Take over `version`, which was begun; returns bytes, seconds and the version verified.

        Fails with the old weights still in place unless all workers have all of it.
        """
        self._rlstack_update(version, "commit")
        stats: dict[str, float] = self.weight_transfer_engine.stats
        return stats

    def _rlstack_update(self, version: int, mode: str, receivers: list[int] | None = None) -> None:
        """Each half of a round as a session of vLLM's own.

        One session for both would be left open where the policy is lost in between, and bar the next.
        """
        self.start_weight_update()
        self.update_weights({"version": version, "mode": mode, "receivers": receivers})
        self.finish_weight_update()

    @answered
    def rlstack_open_gather(
        self,
        method: str,
        store_host: str,
        store_port: int,
        num_stages: int,
        first_receiver: int,
        num_receivers: int,
        timeout_s: float,
    ) -> dict[str, float]:
        """Meet the leaders of `num_stages` stages; this engine's workers count from `first_receiver` up.

        Fails if a leader does not come, or if what will be sent leaves weights of the engine's checkpoint
        out.
        """
        from vllm.utils.nccl import unpinned_nccl_env

        with unpinned_nccl_env():  # which vLLM sets for its own communicators alone
            receiver = GatherReceiver(
                store_host=store_host,
                store_port=store_port,
                receiver=first_receiver + self.rank,
                num_stages=num_stages,
                num_receivers=num_receivers,
                timeout_s=timeout_s,
                backend="nccl" if self.device.type == "cuda" else "gloo",
                device=self.device,
            )
        sent = {spec.name for spec in receiver.specs}
        tied = is_tied(self.model_runner.get_model())
        if missing := expected_names(Path(self.model_config.model), tied=tied) - sent:
            raise TransferError(
                f"the policy does not send {_some(missing)}: the engine would keep stale weights"
            )
        self._rlstack_receivers = {**getattr(self, "_rlstack_receivers", {}), method: receiver}
        return {}

    @answered
    def rlstack_receive_gather(self, method: str, version: int) -> dict[str, float]:
        """Take over the policy's weights of `version`; returns bytes, seconds and the version verified.

        Fails with the old weights still in place if they do not arrive whole.
        """
        started = time.perf_counter()
        receiver = self._rlstack_receivers[method]
        tensors = receiver.receive(version)
        received = time.perf_counter()
        try:
            # vLLM's own loader: it slices by rank, fuses, and repacks what a kernel keeps in its own form.
            self.reload_weights(weights_iterator=iter(tensors.items()), is_checkpoint_format=True)
            repack_tied_weights(self.model_runner.get_model())
        except Exception as error:  # whatever it is, the model is now neither the old one nor the new one
            raise LandingError(f"landing failed midway: {error}") from error
        return {
            "bytes": float(receiver.num_bytes),
            "receive_s": received - started,
            "wait_s": received - started,
            "land_s": time.perf_counter() - received,
            "verified_version": float(version),
        }


def expected_names(folder: Path, *, tied: bool) -> set[str]:
    """Names of the weights in the files that vLLM loads, without a tied output head and buffers."""
    return {
        name
        for name in weight_files(folder)
        if not name.endswith(BUFFERS) and not (tied and name == OUTPUT_HEAD)
    }


def is_tied(model: torch.nn.Module) -> bool:
    """Whether the output head is the embedding: no parameter besides it, whatever config.json says.

    vLLM 0.32 takes the head of a folder that holds both for one of its own until it has read them, and ties
    the two again if they are equal (vllm/model_executor/model_loader/weight_tying.py).
    """
    return not any(name.endswith(OUTPUT_HEAD) for name, _ in model.named_parameters())


def _some(names: Iterable[str]) -> str:
    first, *rest = sorted(names)
    return f"{first} and {len(rest)} more" if rest else first
