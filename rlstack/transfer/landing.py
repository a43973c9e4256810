"""Where the weights land: methods that vLLM mixes into its own worker class (`worker_extension_cls`).

They run in the worker's process and are called by name through `LLM.collective_rpc` with plain numbers and
strings: callables would need vLLM's insecure serialisation. Everything is received and verified before the
model is touched, since a failure in the middle of vLLM's reload leaves parameters without storage.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from rlstack.transfer.gather import GatherReceiver
from rlstack.transfer.group import TransferError


class WeightLanding:
    """Named with a prefix, because vLLM refuses an extension whose names its worker already has."""

    # Of vLLM's worker:
    rank: int  # within the engine
    device: torch.device
    model_config: Any
    model_runner: Any
    reload_weights: Any

    _rlstack_receiver: GatherReceiver

    def rlstack_open_transfer(
        self,
        store_host: str,
        store_port: int,
        num_stages: int,
        first_receiver: int,
        num_receivers: int,
        timeout_s: float,
    ) -> None:
        """Meet the leaders of the policy's stages; this engine's workers count from `first_receiver` up.

        Raises TransferError if a leader does not come, or if what will be sent leaves weights of the engine's
        checkpoint out.
        """
        self._rlstack_receiver = GatherReceiver(
            store_host=store_host,
            store_port=store_port,
            receiver=first_receiver + self.rank,
            num_stages=num_stages,
            num_receivers=num_receivers,
            timeout_s=timeout_s,
            backend="nccl" if self.device.type == "cuda" else "gloo",
            device=self.device,
        )
        tied = bool(self.model_config.hf_config.tie_word_embeddings)
        sent = {spec.name for spec in self._rlstack_receiver.specs}
        if missing := expected_names(Path(self.model_config.model), tied=tied) - sent:
            raise TransferError(
                f"the policy does not send {_some(missing)}: the engine would keep stale weights"
            )

    def rlstack_receive_weights(self, version: int) -> dict[str, float]:
        """Take over the policy's weights of `version`; returns bytes, seconds and the version verified.

        Raises TransferError with the old weights still in place if they do not arrive whole.
        """
        started = time.perf_counter()
        tensors = self._rlstack_receiver.receive(version)
        received = time.perf_counter()
        # vLLM's own loader: it slices by rank, fuses, and repacks what a kernel keeps in a form of its own.
        self.reload_weights(weights_iterator=iter(tensors.items()), is_checkpoint_format=True)
        repack_tied_weights(self.model_runner.get_model())
        return {
            "bytes": float(self._rlstack_receiver.num_bytes),
            "receive_s": received - started,
            "land_s": time.perf_counter() - received,
            "verified_version": float(version),
        }


def expected_names(folder: Path, *, tied: bool) -> set[str]:
    """Names of the weights in a folder's safetensors files, without a tied output head and buffers."""
    names: set[str] = set()
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            names.update(file.keys())
    return {
        n for n in names if not n.endswith("rotary_emb.inv_freq") and not (tied and n == "lm_head.weight")
    }


@torch.no_grad()
def repack_tied_weights(model: torch.nn.Module) -> None:
    """Refresh prepacked copies of a weight that two modules share.

    vLLM 0.32's CPU linears compute with a packed copy behind `cpu_linear`. Its reload repacks the modules
    that it loads; a tied output head is not loaded, only its embedding is, and would go on with the old copy.
    To be removed when vLLM's model_loader/reload/layerwise.py processes modules that share a reloaded weight.
    """
    owners: dict[int, list[torch.nn.Module]] = {}
    for module in model.modules():
        weight = module._parameters.get("weight")
        if weight is not None and weight.numel() > 0:
            owners.setdefault(id(weight), []).append(module)
    for modules in owners.values():
        for module in modules if len(modules) > 1 else ():
            if hasattr(module, "cpu_linear"):
                quant_method: Any = module.quant_method
                quant_method.process_weights_after_loading(module)


def _some(names: Iterable[str]) -> str:
    first, *rest = sorted(names)
    return f"{first} and {len(rest)} more" if rest else first
