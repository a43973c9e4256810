"""The loss that the settings ask for."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol, assert_never

from rlstack.config.schema import Objective, ObjectiveName
from rlstack.losses.grpo import GrpoLoss, GrpoTerm
from rlstack.losses.own import OwnLoss
from rlstack.losses.preference import PreferenceLoss
from rlstack.losses.types import LossInputs, LossOutput


class Loss(Protocol):
    """A loss of one micro-batch; see `LossOutput.loss` for its scale."""

    @property
    def needs_reference(self) -> bool:
        """Whether `LossInputs.reference_logprobs` must be given."""

    @property
    def needs_entropy_gradient(self) -> bool:
        """Whether the loss depends on `LossInputs.entropy`."""

    def __call__(self, inputs: LossInputs) -> LossOutput: ...


def build_loss(objective: Objective, own: Loss | None = None) -> Loss:
    """The loss of `objective`, which has been validated; `own` is what objective.loss stands for."""
    if objective.loss is not None:
        assert own is not None, f"{objective.loss} has not been loaded"
        return OwnLoss(own)
    grpo = GrpoTerm(
        kl_scale=objective.kl_scale,
        length_normalised=objective.length_normalised,
        clip_ratio_low=objective.clip_ratio_low,
        clip_ratio_high=objective.clip_ratio_high,
        tis_cap=objective.tis_cap,
    )
    preference = PreferenceLoss(
        beta=objective.beta,
        length_normalised=objective.length_normalised,
        nll_scale=objective.nll_scale,
        nll_length_normalised=objective.nll_length_normalised,
        entropy_scale=objective.entropy_scale,
    )
    match objective.name:
        case ObjectiveName.dpo | ObjectiveName.group_dpo:
            return preference
        case ObjectiveName.grpo:
            return GrpoLoss(term=grpo, entropy_scale=objective.entropy_scale)
        case ObjectiveName.group_dpo_grpo:
            return replace(preference, grpo=grpo, alpha=objective.alpha)
        case name:
            assert_never(name)
