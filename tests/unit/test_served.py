"""Which runs keep the engines' version, and what the model holds while it is sent once more."""

from __future__ import annotations

import pytest
import torch

from rlstack.config.schedule_words import keeps_served
from rlstack.config.schema import Recovery, RunConfig, Schedule
from rlstack.policy.reference import Reference
from rlstack.policy.served import ServedWeights


def config(sync_interval: int | str | None, **schedule: object) -> RunConfig:
    return RunConfig(schedule=Schedule(sync_interval=sync_interval, **schedule))


@pytest.mark.parametrize(
    ("sync_interval", "save_every", "max_restarts", "keeps"),
    [
        (1, 50, 3, False),
        (2, 50, 0, True),
        (2, None, 3, True),
        (None, 50, 3, True),
        ("auto", 50, 3, True),
        (10, None, 0, False),
    ],
)
def test_it_is_kept_where_the_policy_gets_ahead_and_somebody_could_ask(
    sync_interval, save_every, max_restarts, keeps
) -> None:
    asked = config(sync_interval, save_every=save_every)
    asked.recovery = Recovery(max_restarts=max_restarts)
    assert keeps_served(asked) == keeps


def step(model: torch.nn.Module) -> None:
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter))


def contents(model: torch.nn.Module) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in model.parameters()]


def same(found: list[torch.Tensor], expected: list[torch.Tensor]) -> bool:
    return all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


@pytest.mark.parametrize("reference_sync", ["never", "with_generator"])
def test_the_model_holds_what_was_sent_and_then_its_own_again(reference_sync) -> None:
    model = torch.nn.Linear(3, 2)
    pointers = [parameter.data_ptr() for parameter in model.parameters()]
    reference = Reference(model, version=0)
    served = ServedWeights(model, reference, config(2, reference_sync=reference_sync))
    assert (served.copies is None) == (reference_sync == "with_generator")
    step(model)
    if reference_sync == "with_generator":
        reference.sync(2)
    served.take_over(2)
    sent = contents(model)
    step(model)
    own = contents(model)

    served.put_in_place(2, policy_version=3)
    assert same(contents(model), sent)
    served.take_over(2)  # as a sync of it does
    served.put_back()
    assert same(contents(model), own)
    served.put_in_place(3, policy_version=3)
    assert same(contents(model), own)
    served.put_back()
    assert same(contents(model), own)
    assert [parameter.data_ptr() for parameter in model.parameters()] == pointers


def test_a_version_that_is_not_kept_is_an_error() -> None:
    model = torch.nn.Linear(3, 2)
    served = ServedWeights(model, None, config(1))
    served.take_over(1)
    with pytest.raises(RuntimeError, match="version 1 are not kept; those of 2"):
        served.put_in_place(1, policy_version=2)
