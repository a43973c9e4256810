"""The policy as a Hugging Face folder that plain transformers loads."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch import Tensor

from rlstack.policy.backend import device, parallel_state
from rlstack.policy.hf_io import stage_tensors, tensor_specs
from rlstack.policy.model import PolicyModel
from rlstack.policy.parallel import data_rank, is_leader, num_stages, stage

_COMPANIONS = (
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "chat_template*",
    "generation_config.json",
)


def export(model: PolicyModel, folder: Path, *, source: Path) -> None:
    """Write the weights to `folder`, with the settings and the tokenizer of `source`; replaces `folder`.

    Collective over all ranks. Rank 0 writes, one file per pipeline stage, and holds one stage at a time.
    """
    if data_rank() != 0:
        return
    if stage() > 0 or not is_leader():
        for _, tensor in stage_tensors(model):
            if is_leader():
                dist.send(tensor, dst=_leader(0))
        return
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    _write_weights(model, partial)
    _write_settings(source, partial, dtype=model.config.params_dtype)
    _copy_companions(source, partial)
    _replace(folder, partial)


def _write_weights(model: PolicyModel, folder: Path) -> None:
    weight_map: dict[str, str] = {}
    num_bytes = 0
    for index in range(num_stages()):
        name = f"model-{index + 1:05d}-of-{num_stages():05d}.safetensors"
        name = name if num_stages() > 1 else "model.safetensors"
        # A clone each: safetensors refuses tensors that share memory with others.
        tensors = {key: tensor.to("cpu", copy=True) for key, tensor in _tensors_of(model, index)}
        save_file(tensors, folder / name, metadata={"format": "pt"})
        weight_map.update(dict.fromkeys(tensors, name))
        num_bytes += sum(tensor.nbytes for tensor in tensors.values())
    if num_stages() > 1:
        content = {"metadata": {"total_size": num_bytes}, "weight_map": weight_map}
        _write_json(folder / "model.safetensors.index.json", content)


def _tensors_of(model: PolicyModel, index: int) -> Iterator[tuple[str, Tensor]]:
    """The tensors of stage `index` on rank 0, received from its leader unless it is rank 0's own."""
    if index == stage():
        yield from stage_tensors(model)
        return
    dtype = model.config.params_dtype
    specs = tensor_specs(model.architecture, stage=index, num_stages=num_stages(), dtype=dtype)
    for name, shape, _ in specs:
        tensor = torch.empty(shape, dtype=dtype, device=device())
        dist.recv(tensor, src=_leader(index))
        yield name, tensor


def _leader(index: int) -> int:
    """The global rank of the leader of stage `index`; to be asked on leaders only."""
    return dist.get_global_rank(parallel_state.get_pipeline_model_parallel_group(), index)


def _write_settings(source: Path, folder: Path, *, dtype: torch.dtype) -> None:
    settings = json.loads((source / "config.json").read_text(encoding="utf-8"))
    settings.pop("torch_dtype", None)  # the older name of dtype
    settings["dtype"] = str(dtype).removeprefix("torch.")
    _write_json(folder / "config.json", settings)


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _copy_companions(source: Path, folder: Path) -> None:
    for pattern in _COMPANIONS:
        for path in source.glob(pattern):
            if path.is_file():
                shutil.copyfile(path, folder / path.name)


def _replace(folder: Path, partial: Path) -> None:
    """Move `partial` into the place of `folder`: no reader ever sees half a folder under that name."""
    previous = folder.with_name(folder.name + ".previous")
    shutil.rmtree(previous, ignore_errors=True)
    if folder.exists():
        folder.rename(previous)
    partial.rename(folder)
    shutil.rmtree(previous, ignore_errors=True)
