"""A loss of the user's own in place of the objective's formula: `objective.loss: "my_losses:Ipo"`.

It is a losses.build.Loss, or a class of which one is made without arguments. `objective.name` still says
which examples it gets: pairs of dpo, groups of group_dpo, weighted rollouts of grpo.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from rlstack.config.own_code import load_named
from rlstack.errors import ConfigError, UserCodeError
from rlstack.user_code import look_last_in, raised_by_user

if TYPE_CHECKING:
    from rlstack.losses.build import Loss
    from rlstack.losses.types import LossInputs, LossOutput

NEEDED = ("needs_reference", "needs_entropy_gradient")  # attributes of a Loss, which is called besides


class OwnLoss:
    """A loss of the user's own, in whose calls any exception is the user's: it would come again."""

    def __init__(self, loss: Loss) -> None:
        self._loss = loss
        self.needs_reference = loss.needs_reference
        self.needs_entropy_gradient = loss.needs_entropy_gradient

    def __call__(self, inputs: LossInputs) -> LossOutput:
        """The loss of a micro-batch. Raises UserCodeError for whatever the loss raises."""
        from rlstack.losses.types import LossOutput

        try:
            output = self._loss(inputs)
        except Exception as error:
            raise raised_by_user(error) from error
        if not isinstance(output, LossOutput):
            raise UserCodeError(
                f"{type(self._loss).__qualname__}: a loss returns a LossOutput, and this has returned "
                f"{type(output).__qualname__}"
            )
        return output


def load_loss(name: str, given: Any = None) -> Loss:
    """The loss that objective.loss = `name` stands for.

    given: the loss, or its class, where it is not to be imported; otherwise it is imported from wherever
    Python finds it, the working directory included.

    Raises:
        ConfigError: it cannot be imported or made, or is not a loss.
    """
    look_last_in([os.getcwd()])
    try:
        loss = load_named(name) if given is None else given
        if isinstance(loss, type):
            loss = loss()
    except Exception as error:  # whatever the user's code raises
        raise ConfigError(
            f"objective.loss = {name}: {type(error).__name__}: {error}; name a loss that Python can import "
            "from the working directory or PYTHONPATH"
        ) from error
    if missing := [attribute for attribute in NEEDED if not isinstance(getattr(loss, attribute, None), bool)]:
        raise ConfigError(
            f"objective.loss = {name}: a loss has the attributes {' and '.join(NEEDED)}, True or False; give "
            f"it {' and '.join(missing)}"
        )
    if not callable(loss):
        raise ConfigError(f"objective.loss = {name}: a loss is called with LossInputs; give it __call__")
    made: Loss = loss
    return made
