from __future__ import annotations

import pytest

from rlstack.config.objective import objective_problems
from rlstack.config.ranges import RANGES
from rlstack.config.schema import Objective, ObjectiveName, Schedule
from rlstack.losses.build import build_loss
from rlstack.orchestration.schedule import Schedule as Regime
from rlstack.policy.reference import follows_policy

DPO, GROUP_DPO, GRPO, COMBINED = (
    ObjectiveName.dpo,
    ObjectiveName.group_dpo,
    ObjectiveName.grpo,
    ObjectiveName.group_dpo_grpo,
)


@pytest.mark.parametrize(
    "objective",
    [
        *(Objective(name=name, entropy_scale=1e-4, length_normalised=True) for name in ObjectiveName),
        *(Objective(name=name, nll_scale=1.0) for name in (DPO, GROUP_DPO, COMBINED)),
        Objective(name=GRPO, kl_scale=0.001, std_normalised=True, tis_cap=2.0),
        Objective(name=COMBINED, kl_scale=0.001, clip_ratio_low=0.2, clip_ratio_high=0.28),
    ],
)
def test_a_term_is_accepted_where_there_is_one(objective: Objective) -> None:
    assert list(objective_problems(objective)) == []
    build_loss(objective)


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        (
            Objective(name=GRPO, nll_scale=1.0),
            "objective.nll_scale = 1.0: grpo has no such term; leave it at 0.0 or set objective.name to "
            "dpo or group_dpo or group_dpo_grpo",
        ),
        (
            Objective(name=DPO, kl_scale=0.1),
            "objective.kl_scale = 0.1: dpo has no such term; leave it at 0.0",
        ),
        (Objective(name=GROUP_DPO, std_normalised=True), "objective.std_normalised = True: group_dpo has no"),
        (Objective(name=DPO, tis_cap=2.0), "objective.tis_cap = 2.0: dpo has no such term; leave it at null"),
        (Objective(name=GRPO, tis_cap=2.0, clip_ratio_low=0.2), "objective.tis_cap = 2.0: null is accepted"),
    ],
)
def test_a_term_is_refused_where_there_is_none(objective: Objective, message: str) -> None:
    (found,) = objective_problems(objective)
    assert found.startswith(message)


def test_every_number_of_the_objective_has_a_range() -> None:
    numbers = {"beta", "kl_scale", "alpha", "nll_scale", "entropy_scale"}
    numbers |= {"clip_ratio_low", "clip_ratio_high", "tis_cap"}
    numbers |= {"cut_off_penalty", "cut_off_buffer_tokens"}
    assert {key for key in RANGES if key.startswith("objective.")} == {f"objective.{n}" for n in numbers}
    assert 1.0 in RANGES["objective.clip_ratio_low"] and 1.1 not in RANGES["objective.clip_ratio_low"]


@pytest.mark.parametrize("reference_sync", ["never", "with_generator", 1, 2])
@pytest.mark.parametrize("sync_interval", [1, 2, None])
def test_a_reference_follows_where_it_is_synced_after_every_step(
    reference_sync: str | int, sync_interval: int | None
) -> None:
    settings = Schedule(num_steps=6, sync_interval=sync_interval, reference_sync=reference_sync)
    regime = Regime.of(settings)
    assert follows_policy(settings) == all(regime.reference_syncs_at(version) for version in range(1, 7))
