"""Examples whose loss is 0 whatever the policy is: they count, and need no pass through it. Pure."""

from __future__ import annotations

from rlstack.config.schema import CutOff, Objective
from rlstack.data.records import Example, WeightedRollout


def has_zero_loss(example: Example, objective: Objective) -> bool:
    """Whether `example` adds nothing to the loss of `objective`, nor to its gradient.

    Under grpo these are rollouts that objective.cut_off=mask keeps out of it, and where it has no other term
    (a KL, the entropy, a loss of the user's own) those with an advantage of 0: all of a group whose rewards
    tie. An example of pairs always has a loss.
    """
    if not isinstance(example, WeightedRollout):
        return False
    if objective.cut_off is CutOff.mask and not example.rollout.finished:
        return True
    has_other_terms = objective.kl_scale > 0 or objective.entropy_scale > 0 or objective.loss is not None
    return example.advantage == 0 and not has_other_terms
