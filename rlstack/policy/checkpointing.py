"""A rank's training state to a checkpoint and back: weights, optimiser, schedule, random states, versions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from itertools import compress
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch import Tensor

from rlstack.checkpoint.manifest import POLICY
from rlstack.config.schema import Policy
from rlstack.policy.backend import device
from rlstack.policy.checkpoint_header import Header, layout_of
from rlstack.policy.checkpoint_state import (
    REFERENCE,
    SERVED,
    extra_weights,
    load_optimizer,
    replica_of,
    sharded_optimizer,
    sharded_random_states,
    sharded_weights,
    writers,
)
from rlstack.policy.optimizer import restore_schedule, schedule_state
from rlstack.policy.random_state import set_random_states
from rlstack.policy.restoring import SavedState
from rlstack.policy.saving import BackgroundSave
from rlstack.policy.served import ServedWeights, copy_into, host_copies
from rlstack.policy.trainer import Trainer


def begin_save(trainer: Trainer, served: ServedWeights, policy: Policy, folder: Path) -> BackgroundSave:
    """Take a snapshot of this rank and start to write it to `folder`/policy. Collective."""
    model, target = trainer.model, folder / POLICY
    header = _header(trainer, served, policy)
    weights = {"": list(model.parameters())} | extra_weights(
        _copies(trainer, served, header), version=header.version
    )
    with trainer.optimizer_state.at_hand():
        optimizer = sharded_optimizer(trainer.optimizer, model)
    owners, replica = writers(model, trainer.optimizer), replica_of(trainer.optimizer)
    is_mine = [owners[parameter] == replica for parameter in model.parameters()]
    copies = {prefix: _copies_of(tensors, is_mine) for prefix, tensors in weights.items()}
    state: dict[str, Any] = {
        "weights": sharded_weights(model, copies, is_owner=True),
        "optimizer": optimizer,
        "random": sharded_random_states(),
    }
    save = BackgroundSave(state, target)
    if dist.get_rank() == 0:
        header.write(target)
    return save


def restore(trainer: Trainer, served: ServedWeights, policy: Policy, folder: Path) -> None:
    """Go on from the checkpoint `folder`, whatever layout it was written in. Collective.

    Random states come back only where layout and kind of device are those that it was written with.

    Its files have been verified: restoring.verify. Raises CheckpointError, before anything is changed, if it
    asks for what no checkpoint needs, or is of another model or precision; later only if a tensor is missing,
    or the bytes of one are none, although all digests fit.
    """
    source = folder / POLICY
    header = Header.read(source)
    header.check(trainer.model.architecture, policy, path=source)
    saved = SavedState(source)
    copies = _copies(trainer, served, header)
    extra = extra_weights(copies, version=header.version)
    weights = list(trainer.model.parameters())
    with trainer.optimizer_state.at_hand():
        _load_into({"": weights} | extra, trainer, saved, with_random_states=_is_alike(header, policy))
    for held, tensors in copies.values():
        copy_into(tensors, _weights_of(held, header.version, weights, copies))
    restore_schedule(trainer.schedule, header.lr_schedule)
    trainer.version, served.version = header.version, header.served_version
    if trainer.reference is not None and header.reference_version is not None:
        trainer.reference.version = header.reference_version


def _copies_of(tensors: Sequence[Tensor], is_mine: Sequence[bool]) -> list[Tensor | None]:
    """Copies in host memory of those that are this rank's to write, None for the others."""
    copies = iter(host_copies(list(compress(tensors, is_mine))))
    return [next(copies) if mine else None for mine in is_mine]


def _header(trainer: Trainer, served: ServedWeights, policy: Policy) -> Header:
    reference = trainer.reference
    return Header(
        version=trainer.version,
        served_version=served.version,
        reference_version=None if reference is None else reference.version,
        architecture=asdict(trainer.model.architecture),
        precision=policy.precision.value,
        layout=layout_of(policy),
        device=device().type,
        lr_schedule=schedule_state(trainer.schedule),
    )


def _copies(
    trainer: Trainer, served: ServedWeights, header: Header
) -> dict[str, tuple[int, Sequence[Tensor]]]:
    """The weights beside the policy's that this rank keeps, each with the header's word for their version."""
    copies: dict[str, tuple[int, Sequence[Tensor]]] = {}
    if trainer.reference is not None and header.reference_version is not None:
        copies[REFERENCE] = header.reference_version, trainer.reference.copies
    if served.copies is not None:
        copies[SERVED] = header.served_version, served.copies
    return copies


def _weights_of(
    version: int,
    policy_version: int,
    weights: Sequence[Tensor],
    copies: dict[str, tuple[int, Sequence[Tensor]]],
) -> Sequence[Tensor]:
    """Those that the file holds of `version`: the policy's, or the first copy's."""
    if version == policy_version:
        return weights
    return next(tensors for held, tensors in copies.values() if held == version)


def _load_into(
    wanted: dict[str, Sequence[Tensor]], trainer: Trainer, saved: SavedState, *, with_random_states: bool
) -> None:
    """wanted: as `sharded_weights` takes them."""
    model, names = trainer.model, [name for name, _ in trainer.model.named_parameters()]
    state: dict[str, Any] = {"weights": sharded_weights(model, wanted)}
    if with_random_states:
        state["random"] = sharded_random_states()
    loaded = saved.load(state)
    for prefix, tensors in wanted.items():
        copy_into(tensors, [loaded["weights"][prefix][name] for name in names])
    load_optimizer(trainer.optimizer, model, loaded["optimizer"], saved.load_part)
    if with_random_states:
        set_random_states({name: state[0] for name, state in loaded["random"].items()})


def _is_alike(header: Header, policy: Policy) -> bool:
    return header.layout == layout_of(policy) and header.device == device().type
