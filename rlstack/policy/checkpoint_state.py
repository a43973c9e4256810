"""What of this rank goes into a checkpoint, as megatron-core's sharded state: it fits every layout.

The weights of the reference and of the engines' version are there under prefixes, where they are not the
policy's own. The optimiser's state is there as if it were not distributed, one tensor per parameter.

Data-parallel replicas hold the same weights, and each a share of the optimiser's state. Of each parameter one
of them, its owner, puts the state together and writes it with the weights, so that the host memory for a
checkpoint is divided by the number of replicas. megatron-core's own ways would gather all of it on all
replicas or, "memory efficient", on the first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, TypeAlias

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import Parameter

from rlstack.collectives import gather_json
from rlstack.policy.backend import (
    MegatronOptimizer,
    ShardedTensor,
    ShardedTensorFactory,
    device,
    parallel_state,
)
from rlstack.policy.model import PolicyModel
from rlstack.policy.random_state import random_states

REFERENCE, SERVED = "reference", "served"
ROUND_ELEMENTS = 2**27  # whose optimiser's state is read at a time: 1.5 GiB
_STATES = ("param", "exp_avg", "exp_avg_sq")  # of a parameter, in fp32, as megatron-core calls them

Place: TypeAlias = ShardedTensor | ShardedTensorFactory  # of a tensor in the whole model


class Share(NamedTuple):
    """The elements `start` to `end` of a parameter, flat, whose optimiser's state is on one replica."""

    replica: int
    start: int
    end: int


def shares_of(optimizer: MegatronOptimizer) -> dict[Parameter, list[Share]]:
    """The shares of each parameter in order, the same on all replicas."""
    adam = optimizer.chained_optimizers[0]
    found = {}
    for buffer in adam.buffers:
        for parameter, (start, end, number) in buffer.param_index_map.items():
            bucket = buffer.buckets[number]
            size = bucket.grad_data.numel() // adam.data_parallel_group.size()
            found[parameter] = split_by(size, start - bucket.offset, end - bucket.offset)
    return found


def split_by(size: int, start: int, end: int) -> list[Share]:
    """The shares of elements `start` to `end` of a bucket, of which each replica has `size` elements."""
    return [
        Share(replica, max(start, replica * size) - start, min(end, (replica + 1) * size) - start)
        for replica in range(start // size, (end - 1) // size + 1)
    ]


def owners_of(sizes: Sequence[int], num_replicas: int) -> list[int]:
    """The replica that writes each of the tensors of these sizes, so that all write about as much."""
    loads, owners = [0] * num_replicas, [0] * len(sizes)
    for number in sorted(range(len(sizes)), key=lambda number: -sizes[number]):
        owners[number] = loads.index(min(loads))
        loads[owners[number]] += sizes[number]
    return owners


def rounds_of(sizes: Sequence[int], most: int) -> list[list[int]]:
    """The numbers of tensors of these sizes, in order, in lists of at most `most` elements or one tensor."""
    rounds: list[list[int]] = []
    left = 0
    for number, size in enumerate(sizes):
        if size > left:
            rounds.append([])
            left = most
        rounds[-1].append(number)
        left -= size
    return rounds


def writers(model: PolicyModel, optimizer: MegatronOptimizer) -> dict[Parameter, int | None]:
    """The replica that writes each parameter, in the order of shares_of; None where another stage or tensor
    rank has a copy that comes before this one's.
    """
    places = _places_by_parameter(model)
    found: dict[Parameter, int | None] = dict.fromkeys(shares_of(optimizer))
    written = [parameter for parameter in found if not any(places[parameter].replica_id[:2])]
    num_replicas = optimizer.chained_optimizers[0].data_parallel_group.size()
    owners = owners_of([parameter.numel() for parameter in written], num_replicas)
    return found | dict(zip(written, owners, strict=True))


def replica_of(optimizer: MegatronOptimizer) -> int:
    """This rank's among those that hold the same weights."""
    return int(optimizer.chained_optimizers[0].data_parallel_group.rank())


def sharded_weights(
    model: PolicyModel, weights: Mapping[str, Sequence[Tensor | None]], *, is_owner: bool = False
) -> dict[str, Any]:
    """`weights`, by prefix in the file ("": the policy's), with the place of each tensor in the whole model.

    They come in the order of the model's parameters, and leave by prefix and name, without those that are
    None. Transformer Engine's extra state is left out: it holds scales of FP8. is_owner: no other
    data-parallel replica has them.
    """
    places = _places(model)
    names = [name for name, _ in model.named_parameters()]
    return {
        prefix: {
            name: replace(
                places[name],
                key=f"{prefix}.{places[name].key}".lstrip("."),
                data=tensor,
                replica_id=_replica_id(places[name]) if is_owner else places[name].replica_id,
            )
            for name, tensor in zip(names, tensors, strict=True)
            if tensor is not None
        }
        for prefix, tensors in weights.items()
    }


def sharded_optimizer(optimizer: MegatronOptimizer, model: PolicyModel) -> Any:
    """The state of the parameters that this rank owns, in host memory. Collective over the replicas."""
    adam = optimizer.chained_optimizers[0]
    _fill_moments(optimizer)
    places, owners = _places_by_parameter(model), writers(model, optimizer)
    state = dict(_whole_states(adam, places, owners, shares_of(optimizer)))
    adam.sharded_param_state_fully_reshardable = lambda *_: state  # in place of the method, for one call
    metadata = {"distrib_optim_sharding_type": "fully_reshardable", "chained_optim_avoid_prefix": True}
    try:
        return optimizer.sharded_state_dict({}, is_loading=False, metadata=metadata)
    finally:
        del adam.sharded_param_state_fully_reshardable


@torch.no_grad()
def load_optimizer(
    optimizer: MegatronOptimizer,
    model: PolicyModel,
    common: dict[str, Any],
    load: Callable[[dict[str, Any]], dict[str, Any]],
) -> None:
    """Have the optimiser go on from a checkpoint in any layout. Collective over all ranks.

    The state comes in rounds, so that it takes little host memory. common: what of it is no tensor. load:
    SavedState.load_part.
    """
    adam, shares = optimizer.chained_optimizers[0], shares_of(optimizer)
    _fill_moments(optimizer)
    optimizer.load_state_dict({name: value for name, value in common.items() if name != "param_state"})
    parameters, places = list(shares), _places_by_parameter(model)
    rounds = rounds_of([parameter.numel() for parameter in parameters], ROUND_ELEMENTS)
    for number in range(max(gather_json(len(rounds)))):
        mine = {
            i: share
            for i in (rounds[number] if number < len(rounds) else ())
            for share in shares[parameters[i]]
            if share.replica == replica_of(optimizer)
        }
        loaded = load({str(i): _room(places[parameters[i]]) for i in mine})
        for i, (_, start, end) in mine.items():
            state = {name: tensor.flatten()[start:end] for name, tensor in loaded[str(i)].items()}
            adam._set_main_param_and_optimizer_states(parameters[i], state)


def _places(model: PolicyModel) -> dict[str, Place]:
    """Of every parameter, by name."""
    metadata = {"dp_cp_group": parallel_state.get_data_parallel_group(with_context_parallel=True)}
    return {
        name: entry
        for name, entry in model.sharded_state_dict(metadata=metadata).items()
        if isinstance(entry, ShardedTensor | ShardedTensorFactory)
    }


def _places_by_parameter(model: PolicyModel) -> dict[Parameter, Place]:
    places = _places(model)
    return {parameter: places[name] for name, parameter in model.named_parameters()}


def _room(place: Place) -> dict[str, Place]:
    """For the whole state of a parameter."""
    shape = place.data.shape
    return _placed(place, {name: torch.empty(shape, dtype=torch.float32) for name in _STATES})


def _whole_states(
    adam: Any,
    places: Mapping[Parameter, Place],
    owners: Mapping[Parameter, int | None],
    shares: Mapping[Parameter, list[Share]],
) -> Iterator[tuple[int, dict[str, Place]]]:
    """By the number of the parameter, of those that this rank writes.

    Every replica goes through the parameters in the same order, so that each message is waited for.
    """
    group = adam.data_parallel_group
    if group.size() > 1:  # messages between two of a group come after a first collective of all
        dist.all_reduce(torch.zeros(1, device=device()), group=group)
    for number, (parameter, of_it) in enumerate(shares.items()):
        owner = owners[parameter]
        if owner is None:
            continue
        own: dict[str, Tensor] = {}
        if any(share.replica == group.rank() for share in of_it):
            own = adam._get_main_param_and_optimizer_states(parameter)
        state = {name: _put_together(own.get(name), of_it, owner, group) for name in _STATES}
        if owner == group.rank():
            yield number, _placed(places[parameter], state)


def _put_together(
    own: Tensor | None, shares: Sequence[Share], owner: int, group: dist.ProcessGroup
) -> Tensor | None:
    """On the replica `owner` the whole tensor, flat, in host memory; `own` is the share of this one."""
    if group.rank() != owner:
        if own is not None:
            _exchange([dist.P2POp(dist.isend, own.detach(), dist.get_global_rank(group, owner), group)])
        return None
    parts = [
        own.detach()
        if own is not None and share.replica == owner
        else torch.empty(share.end - share.start, dtype=torch.float32, device=device())
        for share in shares
    ]
    _exchange(
        [
            dist.P2POp(dist.irecv, part, dist.get_global_rank(group, share.replica), group)
            for share, part in zip(shares, parts, strict=True)
            if share.replica != owner
        ]
    )
    whole = torch.empty(shares[-1].end, dtype=torch.float32)
    for share, part in zip(shares, parts, strict=True):
        whole[share.start : share.end].copy_(part)
    return whole


def _exchange(messages: list[dist.P2POp]) -> None:
    for work in dist.batch_isend_irecv(messages) if messages else ():
        work.wait()


def _placed(place: Place, state: Mapping[str, Tensor | None]) -> dict[str, Place]:
    """The tensors `state` of a parameter where its own `place` is; no other replica has them."""
    placed = {}
    for name, tensor in state.items():
        assert tensor is not None
        dtype = {"dtype": tensor.dtype} if isinstance(place, ShardedTensor) else {}
        placed[name] = replace(
            place,
            key=f"optimizer.state.{name}.{place.key}",
            data=tensor.reshape(place.data.shape),
            replica_id=_replica_id(place),
            **dtype,
        )
    return placed


def _replica_id(place: Place) -> tuple[int, ...]:
    """That of `place` by stage and tensor rank, and of the data-parallel replicas the first."""
    return (*place.replica_id[:2], 0)


def sharded_random_states() -> dict[str, Any]:
    """Of every rank; they mean something to the same ranks in the same layout only."""
    place = (0, dist.get_rank(), dist.get_world_size())
    return {
        name: ShardedTensor.from_rank_offsets(f"random.{name}", state[None], place)
        for name, state in random_states().items()
    }


def extra_weights(
    copies: Mapping[str, tuple[int, Sequence[Tensor]]], *, version: int
) -> dict[str, Sequence[Tensor]]:
    """Those of `copies`, by prefix with their versions, that are neither the policy's `version` nor each
    other's: the first of them stands for all of its version.
    """
    known, extra = {version}, {}
    for prefix, (held, tensors) in copies.items():
        if held not in known:
            known.add(held)
            extra[prefix] = tensors
    return extra


def _fill_moments(optimizer: MegatronOptimizer) -> None:
    """Adam makes its moments in the first step; megatron-core's state wants them there."""
    adam = optimizer.optimizer
    for parameter in (parameter for group in adam.param_groups for parameter in group["params"]):
        for name in ("exp_avg", "exp_avg_sq"):
            adam.state[parameter].setdefault(name, torch.zeros_like(parameter))
