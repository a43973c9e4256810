"""Weights between this rank's model and Hugging Face: loading, whole tensors, their names and shapes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from rlstack.model.weight_names import Rule, global_name, shard_shape, slice_bounds, stage_rules, wire_rules
from rlstack.policy.backend import device, parallel_state
from rlstack.policy.hf_map import fuse, join
from rlstack.policy.model import PolicyModel
from rlstack.policy.parallel import num_stages, stage
from rlstack.policy.tensor_folder import TensorFolder


@torch.no_grad()
def load_weights(model: PolicyModel, folder: Path) -> None:
    """Fill this rank's parameters from the Hugging Face folder, reading only what it holds.

    Raises ConfigError for tensors that are missing or of another shape than config.json says.
    """
    tensors = TensorFolder(folder)
    architecture = model.architecture
    tp_rank, tp_size = _tensor_rank_and_size()
    rules = stage_rules(architecture, model.stages[stage()])
    for name, parameter in _parameters(model).items():
        rule = rules[name]
        slices = []
        for part in rule.parts:
            bounds = None
            if part.cut is not None:
                bounds = slice_bounds(part, rule, architecture, tp_rank=tp_rank, tp_size=tp_size)
            slices.append(tensors.read(part, bounds))
        parameter.copy_(fuse(rule, slices, architecture, tp_size=tp_size))


def stage_tensors(model: PolicyModel) -> Iterator[tuple[str, Tensor]]:
    """The whole Hugging Face tensors of this pipeline stage, in the order of `stage_specs`.

    Collective over the tensor-parallel ranks: each of them iterates to the end, and gets every tensor.
    Padding is gone, and a tied output layer is not repeated.
    """
    parameters = _parameters(model)
    for name, rule in wire_rules(model.architecture, model.stages[stage()]).items():
        yield from join(rule, _shards(parameters[name].detach(), rule), model.architecture)


def model_tensors(model: PolicyModel) -> Iterator[tuple[str, Tensor]]:
    """The whole model's Hugging Face tensors on every rank, stage by stage in the order of `stage_specs`.

    Collective over the tensor- and pipeline-parallel ranks: each parameter is broadcast over the pipeline and
    then gathered over tensor parallelism everywhere, as verl/utils/megatron_utils.py, per_tensor_generator.
    """
    parameters = _parameters(model)
    stages = parallel_state.get_pipeline_model_parallel_group()
    _, tp_size = _tensor_rank_and_size()
    for owner, layers in enumerate(model.stages):
        for name, rule in wire_rules(model.architecture, layers).items():
            if owner == stage():
                shard = parameters[name].detach()
            else:
                shape = shard_shape(rule, model.architecture, tp_size=tp_size)
                shard = torch.empty(shape, dtype=model.config.params_dtype, device=device())
            if num_stages() > 1:
                dist.broadcast(shard, group_src=owner, group=stages)
            yield from join(rule, _shards(shard, rule), model.architecture)


def stage_specs(model: PolicyModel, index: int) -> list[tuple[str, tuple[int, ...], str]]:
    """(name, shape, dtype) of what `stage_tensors` yields on stage `index`; the dtype as in "float32"."""
    dtype_name = str(model.config.params_dtype).removeprefix("torch.")
    rules = wire_rules(model.architecture, model.stages[index]).values()
    return [(part.name, part.shape, dtype_name) for rule in rules for part in rule.parts]


def _parameters(model: PolicyModel) -> dict[str, Tensor]:
    """This rank's parameters by their names in `stage_rules`."""
    return {
        global_name(name, layers.start): parameter
        for chunk, layers in zip(model.chunks, model.stages[stage()], strict=True)
        for name, parameter in chunk.named_parameters()
    }


def _shards(parameter: Tensor, rule: Rule) -> list[Tensor]:
    """The parameter of every tensor-parallel rank, in order; of one rank where all hold the same."""
    _, tp_size = _tensor_rank_and_size()
    if tp_size == 1 or rule.parts[0].cut is None:
        return [parameter]
    shards = [torch.empty_like(parameter) for _ in range(tp_size)]
    dist.all_gather(shards, parameter.contiguous(), group=parallel_state.get_tensor_model_parallel_group())
    return shards


def _tensor_rank_and_size() -> tuple[int, int]:
    return (
        parallel_state.get_tensor_model_parallel_rank(),
        parallel_state.get_tensor_model_parallel_world_size(),
    )
