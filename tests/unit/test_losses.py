from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rlstack.config.schema import Objective, ObjectiveName
from rlstack.losses.build import Loss, build_loss
from rlstack.losses.grpo import k3_kl, unit_ratios
from rlstack.losses.sequences import sum_by_sequence
from rlstack.losses.types import LossInputs, LossOutput

LENGTHS = [5, 3, 7, 4]
PROMPT_LABELS = [2, 1, 3, 0]  # positions at the start of each sequence whose label is not sampled
BETA, KL_SCALE = 0.3, 0.05
LOSSES = {
    "dpo": build_loss(Objective(name=ObjectiveName.dpo, beta=BETA)),
    "grpo": build_loss(Objective(name=ObjectiveName.grpo)),
    "grpo_kl": build_loss(Objective(name=ObjectiveName.grpo, kl_scale=KL_SCALE)),
}


def inputs(seed: int = 0, dtype: torch.dtype = torch.float32) -> LossInputs:
    generator = torch.Generator().manual_seed(seed)
    policy, reference = -2 * torch.rand(2, sum(LENGTHS), generator=generator, dtype=torch.float64)
    mask = [i >= skip for n, skip in zip(LENGTHS, PROMPT_LABELS, strict=True) for i in range(n)]
    return LossInputs(
        policy_logprobs=policy.to(dtype).requires_grad_(),
        entropy=torch.rand(sum(LENGTHS), generator=generator, dtype=torch.float64).to(dtype),
        reference_logprobs=reference.to(dtype),
        generator_logprobs=policy.to(dtype),
        loss_mask=torch.tensor(mask),
        sequence_starts=torch.tensor([0, *LENGTHS]).cumsum(0),
        pairs=torch.tensor([[0, 1], [3, 2]]),
        advantages=torch.tensor([0.75, -0.25, 0.5, -1.0], dtype=dtype),
    )


def split(values: Tensor) -> list[list[float]]:
    """The sampled tokens' values by sequence."""
    rows = values.detach().double().split(LENGTHS)
    return [row[skip:].tolist() for row, skip in zip(rows, PROMPT_LABELS, strict=True)]


def expected_gradient(loss: Loss, given_: LossInputs) -> list[list[float]]:
    """d loss / d policy_logprobs of the sampled tokens, from the formulas by hand, in Python floats."""
    assert given_.reference_logprobs is not None
    policy, reference = split(given_.policy_logprobs), split(given_.reference_logprobs)
    if loss is LOSSES["dpo"]:
        weights = [0.0] * len(LENGTHS)
        for c, r in given_.pairs.tolist():
            margin = BETA * (sum(policy[c]) - sum(reference[c]) - sum(policy[r]) + sum(reference[r]))
            weights[c], weights[r] = (sign * BETA / (1 + math.exp(margin)) for sign in (-1, 1))
        return [[weight] * len(row) for weight, row in zip(weights, policy, strict=True)]
    scale = KL_SCALE if loss is LOSSES["grpo_kl"] else 0.0
    return [
        [-a + scale * (1 - math.exp(ref - lp)) for lp, ref in zip(row, ref_row, strict=True)]
        for a, row, ref_row in zip(given_.advantages.tolist(), policy, reference, strict=True)
    ]


def value(output: LossOutput, metric: str) -> float:
    return float(output.metrics[metric].total / output.metrics[metric].count)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("seed", range(3))
def test_the_gradient_is_that_of_the_formula(name: str, seed: int) -> None:
    given_ = inputs(seed)
    LOSSES[name](given_).loss.backward()
    gradient = given_.policy_logprobs.grad
    assert gradient is not None and not gradient[~given_.loss_mask].any()
    for found, expected in zip(split(gradient), expected_gradient(LOSSES[name], given_), strict=True):
        assert found == pytest.approx(expected, rel=1e-5, abs=1e-7)


def test_dpo_is_ln_2_where_the_policy_is_the_reference() -> None:
    given_ = inputs()
    output = LOSSES["dpo"](dataclasses.replace(given_, reference_logprobs=given_.policy_logprobs.detach()))
    assert output.loss.item() == pytest.approx(2 * math.log(2), rel=1e-6)
    assert value(output, "loss/total") == pytest.approx(math.log(2), rel=1e-6)
    assert (value(output, "dpo/margin"), value(output, "dpo/accuracy")) == (0, 0)


def test_dpo_metrics_are_means_over_pairs() -> None:
    given_ = inputs()
    assert given_.reference_logprobs is not None
    policy = [sum(row) for row in split(given_.policy_logprobs)]
    ratios = [p - sum(row) for p, row in zip(policy, split(given_.reference_logprobs), strict=True)]
    margins = [BETA * (ratios[c] - ratios[r]) for c, r in given_.pairs.tolist()]
    output = LOSSES["dpo"](given_)
    assert value(output, "dpo/margin") == pytest.approx(sum(margins) / 2, rel=1e-5)
    assert value(output, "dpo/accuracy") == sum(margin > 0 for margin in margins) / 2
    assert value(output, "policy/chosen_logprob") == pytest.approx((policy[0] + policy[3]) / 2, rel=1e-5)
    assert value(output, "policy/rejected_logprob") == pytest.approx((policy[1] + policy[2]) / 2, rel=1e-5)
    assert value(output, "loss/total") == pytest.approx(
        sum(math.log1p(math.exp(-margin)) for margin in margins) / 2, rel=1e-5
    )


def test_grpo_has_the_value_of_the_on_policy_objective() -> None:
    given_ = inputs()
    assert torch.equal(unit_ratios(given_.policy_logprobs), torch.ones(sum(LENGTHS)))
    num_sampled = [n - skip for n, skip in zip(LENGTHS, PROMPT_LABELS, strict=True)]
    expected = -sum(a * n for a, n in zip(given_.advantages.tolist(), num_sampled, strict=True))
    output = LOSSES["grpo"](given_)
    assert output.loss.item() == pytest.approx(expected)
    assert value(output, "loss/total") == pytest.approx(expected / len(LENGTHS))
    assert "grpo/kl" not in output.metrics


def test_grpo_kl_is_a_mean_over_tokens() -> None:
    given_ = inputs()
    assert given_.reference_logprobs is not None
    deltas = [
        ref - lp
        for rows in zip(split(given_.policy_logprobs), split(given_.reference_logprobs), strict=True)
        for lp, ref in zip(*rows, strict=True)
    ]
    expected = sum(math.exp(delta) - delta - 1 for delta in deltas)
    output = LOSSES["grpo_kl"](given_)
    assert value(output, "grpo/kl") == pytest.approx(expected / len(deltas), rel=1e-5)
    without = LOSSES["grpo"](given_).loss
    assert (output.loss - without).item() == pytest.approx(KL_SCALE * expected, rel=1e-4)


@given(st.floats(-20, 0), st.floats(-20, 0))
def test_k3_is_zero_for_equal_policies_and_never_negative(policy: float, reference: float) -> None:
    kl = k3_kl(torch.tensor(policy), torch.tensor(reference)).item()
    assert kl >= 0 and k3_kl(torch.tensor(policy), torch.tensor(policy)).item() == 0


def test_k3_is_unbiased_for_the_divergence() -> None:
    policy, reference = torch.randn(2, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    p, q = policy.log_softmax(0), reference.log_softmax(0)
    assert (p.exp() * k3_kl(p, q)).sum().item() == pytest.approx((p.exp() * (p - q)).sum().item())


@given(st.lists(st.lists(st.integers(-9, 9), max_size=5), min_size=1, max_size=6))
def test_sums_go_from_one_start_to_the_next(rows: list[list[int]]) -> None:
    values = torch.tensor([value for row in rows for value in row], dtype=torch.float32)
    starts = torch.tensor([0, *map(len, rows)]).cumsum(0)
    assert sum_by_sequence(values, starts).tolist() == [sum(row) for row in rows]


@pytest.mark.parametrize("name", LOSSES)
def test_values_outside_of_the_mask_do_not_matter(name: str) -> None:
    given_ = inputs()
    assert given_.reference_logprobs is not None
    spoilt = dataclasses.replace(
        given_,
        policy_logprobs=given_.policy_logprobs.detach().masked_fill(~given_.loss_mask, -math.inf),
        reference_logprobs=given_.reference_logprobs.masked_fill(~given_.loss_mask, math.nan),
        entropy=given_.entropy.masked_fill(~given_.loss_mask, math.nan),
    )
    spoilt.policy_logprobs.requires_grad_()
    output, expected = LOSSES[name](spoilt), LOSSES[name](given_)
    output.loss.backward()
    expected.loss.backward()
    assert torch.equal(output.loss, expected.loss)
    assert torch.equal(spoilt.policy_logprobs.grad, given_.policy_logprobs.grad)
    assert {m: value(output, m) for m in output.metrics} == {m: value(expected, m) for m in output.metrics}


@pytest.mark.parametrize("name", LOSSES)
def test_a_filler_adds_nothing_but_can_run_backward(name: str) -> None:
    filler = LossInputs(
        policy_logprobs=torch.tensor([-3.0], requires_grad=True),
        entropy=torch.tensor([1.0]),
        reference_logprobs=torch.tensor([-1.0]),
        generator_logprobs=torch.zeros(1),
        loss_mask=torch.tensor([False]),
        sequence_starts=torch.tensor([0, 1]),
        pairs=torch.zeros(0, 2, dtype=torch.int64),
        advantages=torch.zeros(1),
    )
    output = LOSSES[name](filler)
    output.loss.backward()
    assert output.loss.item() == 0 and filler.policy_logprobs.grad.tolist() == [0]
    assert {(float(ratio.total), float(ratio.count)) for ratio in output.metrics.values()} == {(0, 0)}


@pytest.mark.parametrize("name", LOSSES)
def test_metrics_do_not_hold_the_graph(name: str) -> None:
    output = LOSSES[name](inputs())
    assert not any(
        ratio.total.requires_grad or ratio.count.requires_grad for ratio in output.metrics.values()
    )


def test_a_needed_reference_is_asserted() -> None:
    without = dataclasses.replace(inputs(), reference_logprobs=None)
    assert [loss.needs_reference for loss in LOSSES.values()] == [True, False, True]
    for loss in LOSSES.values():
        if loss.needs_reference:
            with pytest.raises(AssertionError, match="reference"):
                loss(without)
        else:
            assert loss(without).loss.isfinite()
