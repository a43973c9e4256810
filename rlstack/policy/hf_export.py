"""The policy as a Hugging Face folder that plain transformers loads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from rlstack.policy.backend import device, parallel_state
from rlstack.policy.hf_folder import replaced_at_once, write_companions
from rlstack.policy.hf_io import stage_specs, stage_tensors
from rlstack.policy.model import PolicyModel
from rlstack.policy.parallel import is_first_replica, is_leader, num_stages, stage
from rlstack.policy.weight_files import MAX_FILE_BYTES, WeightFiles, specs_of


def export(model: PolicyModel, folder: Path, *, source: Path, max_file_bytes: int = MAX_FILE_BYTES) -> None:
    """Write the weights to `folder`, with the settings and the tokenizer of `source`; replaces `folder`.

    Collective over all ranks. Rank 0 writes, and holds one tensor at a time. The files are the same in every
    layout.

    Raises RuntimeError on rank 0 if a stage's tensors do not come within the process group's limit.
    """
    if not is_first_replica():
        return
    dtype = model.config.params_dtype
    if stage() > 0 or not is_leader():
        for _, tensor in stage_tensors(model):
            if is_leader():
                dist.send(tensor.to(dtype), dst=_leader(0))
        return
    with replaced_at_once(folder) as draft:
        dtype_name = str(dtype).removeprefix("torch.")
        specs = specs_of(model.architecture, dtype_name)
        files = WeightFiles(draft, specs, max_file_bytes=max_file_bytes)
        for index in range(num_stages()):
            for name, tensor in _tensors_of(model, index):
                files.write(name, tensor)
        files.close()
        write_companions(source, draft, dtype=dtype_name)


def _tensors_of(model: PolicyModel, index: int) -> Iterator[tuple[str, Tensor]]:
    """The tensors of stage `index` on rank 0, received from its leader unless it is rank 0's own."""
    if index == stage():
        yield from stage_tensors(model)
        return
    leader = _leader(index)
    for name, shape, _ in stage_specs(model, index):
        tensor = torch.empty(shape, dtype=model.config.params_dtype, device=device())
        try:
            dist.recv(tensor, src=leader)
        except RuntimeError as error:
            raise RuntimeError(
                f"export: {name} did not come from policy rank {leader}, of pipeline stage {index}: {error}"
            ) from None
        yield name, tensor


def _leader(index: int) -> int:
    """The global rank of the leader of stage `index`; to be asked on leaders only."""
    return dist.get_global_rank(parallel_state.get_pipeline_model_parallel_group(), index)
