from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rlstack.config.schema import Objective, ObjectiveName
from rlstack.losses.build import build_loss
from rlstack.losses.sequences import sum_by_sequence
from rlstack.losses.terms import k3_kl, truncated_ratios, unit_ratios
from rlstack.losses.types import LossInputs, LossOutput
from rlstack.telemetry.metrics import check_declared
from tests.objectives import Answer, Comparison, objective_loss

LENGTHS = [5, 3, 7, 4, 6]
PROMPT_LABELS = [2, 1, 3, 0, 4]  # positions at the start of each sequence whose label is not sampled
ADVANTAGES = [0.75, -0.25, -0.5, 0.5, -1.0]

# Sequences of each example, and which of them is to beat which.
Layout = list[tuple[list[int], list[tuple[int, int]]]]
PAIRS: Layout = [([0, 1], [(0, 1)]), ([2, 4], [(4, 2)])]
GROUPS: Layout = [([0, 1, 2], [(0, 1), (0, 2)]), ([3, 4], [(4, 3)])]
SINGLES: Layout = [([i], []) for i in range(5)]
LAYOUTS = {
    ObjectiveName.dpo: PAIRS,
    ObjectiveName.group_dpo: GROUPS,
    ObjectiveName.group_dpo_grpo: GROUPS,
    ObjectiveName.grpo: SINGLES,
}

DPO = Objective(name=ObjectiveName.dpo, beta=0.3)
GROUP_DPO = Objective(name=ObjectiveName.group_dpo, beta=0.3)
GRPO = Objective(name=ObjectiveName.grpo)
COMBINED = Objective(name=ObjectiveName.group_dpo_grpo, beta=0.3, alpha=0.2)
NORMALISED = {"length_normalised": True}
NLL = {"nll_scale": 0.7}
ENTROPY = {"entropy_scale": 0.4}
CLIP = {"clip_ratio_low": 0.2, "clip_ratio_high": 0.3}
OBJECTIVES = {
    "dpo": DPO,
    "dpo normalised": dataclasses.replace(DPO, **NORMALISED, **NLL, **ENTROPY),
    "dpo nll entropy": dataclasses.replace(DPO, **NLL, **ENTROPY, nll_length_normalised=False),
    "group_dpo": GROUP_DPO,
    "group_dpo nll entropy": dataclasses.replace(GROUP_DPO, **NLL, **ENTROPY),
    "grpo": GRPO,
    "grpo kl": dataclasses.replace(GRPO, kl_scale=0.05),
    "grpo normalised": dataclasses.replace(GRPO, **NORMALISED, **ENTROPY, kl_scale=0.05),
    "grpo clip": dataclasses.replace(GRPO, **CLIP, kl_scale=0.05),
    "grpo clip high": dataclasses.replace(GRPO, clip_ratio_high=0.3),
    "grpo tis": dataclasses.replace(GRPO, **ENTROPY, tis_cap=1.2),
    "combined": COMBINED,
    "combined all": dataclasses.replace(COMBINED, **NLL, **ENTROPY, **CLIP, kl_scale=0.05),
    "combined normalised": dataclasses.replace(COMBINED, **NORMALISED, tis_cap=1.2, kl_scale=0.05),
}


def inputs(layout: Layout, seed: int = 0) -> LossInputs:
    generator = torch.Generator().manual_seed(seed)
    size = sum(LENGTHS)
    policy, reference, generators = -2 * torch.rand(3, size, generator=generator)
    mask = [i >= skip for n, skip in zip(LENGTHS, PROMPT_LABELS, strict=True) for i in range(n)]
    pairs = [(members, pair) for members, of_example in layout for pair in of_example]
    num_pairs = [len(of_example) for _, of_example in layout for _ in of_example]
    shares = {i: 1 / len(members) for members, _ in layout for i in members}
    return LossInputs(
        policy_logprobs=policy.requires_grad_(),
        entropy=torch.rand(size, generator=generator).requires_grad_(),
        reference_logprobs=reference,
        generator_logprobs=generators,
        loss_mask=torch.tensor(mask),
        sequence_starts=torch.tensor([0, *LENGTHS]).cumsum(0),
        pairs=torch.tensor([pair for _, pair in pairs], dtype=torch.int64).reshape(-1, 2),
        pair_weights=torch.tensor([1 / count for count in num_pairs]),
        advantages=torch.tensor(ADVANTAGES),
        rollout_weights=torch.tensor([shares.get(i, 0.0) for i in range(len(LENGTHS))]),
    )


def given_inputs(objective: Objective, seed: int = 0) -> LossInputs:
    return inputs(LAYOUTS[objective.name], seed)


def sampled(values: Tensor) -> list[Tensor]:
    """The sampled tokens' values by sequence, in fp64."""
    rows = values.double().split(LENGTHS)
    return [row[skip:] for row, skip in zip(rows, PROMPT_LABELS, strict=True)]


def oracle(objective: Objective, given_: LossInputs, policy: Tensor, entropy: Tensor) -> Tensor:
    """The sum over examples by the papers' formulas, in fp64."""
    assert given_.reference_logprobs is not None
    layout = LAYOUTS[objective.name]
    columns = (policy, entropy, given_.reference_logprobs, given_.generator_logprobs)
    answers = [
        Answer(*of_sequence, advantage)
        for *of_sequence, advantage in zip(*map(sampled, columns), ADVANTAGES, strict=True)
    ]
    examples = [
        Comparison([answers[i] for i in members], [(members.index(c), members.index(r)) for c, r in pairs])
        for members, pairs in layout
    ]
    return objective_loss(examples, objective) * len(examples)


def value(output: LossOutput, metric: str) -> float:
    return float(output.metrics[metric].total / output.metrics[metric].count)


def loss_of(objective: Objective, given_: LossInputs) -> tuple[Tensor, Tensor]:
    """The loss and its gradient by the policy's logprobs."""
    loss = build_loss(objective)(given_).loss
    (gradient,) = torch.autograd.grad(loss, given_.policy_logprobs)
    return loss, gradient


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("seed", range(3))
def test_loss_and_gradients_are_those_of_the_formula(name: str, seed: int) -> None:
    objective = OBJECTIVES[name]
    given_ = given_inputs(objective, seed)
    loss = build_loss(objective)
    output = loss(given_)
    output.loss.backward()
    policy = given_.policy_logprobs.detach().double().requires_grad_()
    entropy = given_.entropy.detach().double().requires_grad_()
    expected = oracle(objective, given_, policy, entropy)
    expected.backward()
    assert output.loss.item() == pytest.approx(expected.item(), rel=1e-5)
    num_examples = len(LAYOUTS[objective.name])
    assert value(output, "loss/total") == pytest.approx(expected.item() / num_examples, rel=1e-5)
    torch.testing.assert_close(given_.policy_logprobs.grad.double(), policy.grad, rtol=1e-5, atol=1e-6)
    assert loss.needs_entropy_gradient == (objective.entropy_scale > 0)
    if objective.entropy_scale > 0:
        torch.testing.assert_close(given_.entropy.grad.double(), entropy.grad, rtol=1e-5, atol=1e-6)
    else:
        assert given_.entropy.grad is None


@pytest.mark.parametrize("objective", [DPO, GROUP_DPO], ids=lambda objective: objective.name.value)
def test_dpo_is_ln_2_where_the_policy_is_the_reference(objective: Objective) -> None:
    given_ = given_inputs(objective)
    given_ = dataclasses.replace(given_, reference_logprobs=given_.policy_logprobs.detach())
    output = build_loss(objective)(given_)
    assert output.loss.item() == pytest.approx(2 * math.log(2), rel=1e-6)
    assert value(output, "loss/total") == pytest.approx(math.log(2), rel=1e-6)
    assert (value(output, "dpo/margin"), value(output, "dpo/accuracy")) == (0, 0)


def test_group_dpo_with_one_pair_in_a_group_is_dpo() -> None:
    given_ = inputs(PAIRS)
    for expected, found in zip(loss_of(DPO, given_), loss_of(GROUP_DPO, given_), strict=True):
        assert torch.equal(found, expected)


def test_the_combined_objective_without_grpo_is_group_dpo() -> None:
    given_, without = inputs(GROUPS), dataclasses.replace(COMBINED, alpha=0.0)
    for expected, found in zip(loss_of(GROUP_DPO, given_), loss_of(without, given_), strict=True):
        assert torch.equal(found, expected)


def test_grpo_inside_of_the_combined_objective_acts_on_tokens() -> None:
    given_ = inputs(GROUPS)
    difference = loss_of(COMBINED, given_)[1] - loss_of(GROUP_DPO, given_)[1]
    for i, found in enumerate(sampled(difference)):
        size = next(len(members) for members, _ in GROUPS if i in members)
        expected = torch.full_like(found, -COMBINED.alpha * ADVANTAGES[i] / size)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("bounds", [(0.9, 50.0), (0.9, None), (None, 50.0)])
def test_a_clip_that_nothing_reaches_is_importance_sampling_alone(
    bounds: tuple[float | None, float | None],
) -> None:
    given_ = inputs(SINGLES)
    low, high = bounds
    _, gradient = loss_of(dataclasses.replace(GRPO, clip_ratio_low=low, clip_ratio_high=high), given_)
    _, on_policy = loss_of(GRPO, given_)
    ratios = torch.exp(given_.policy_logprobs - given_.generator_logprobs).detach()
    assert ratios.min() > 0.1 and ratios.max() < 51
    torch.testing.assert_close(gradient, ratios * on_policy)


def test_on_policy_clipping_and_truncation_change_nothing() -> None:
    given_ = inputs(SINGLES)
    given_ = dataclasses.replace(given_, generator_logprobs=given_.policy_logprobs.detach())
    expected = loss_of(GRPO, given_)
    for options in (CLIP, {"tis_cap": 1.0}, {"tis_cap": 2.0}):
        for found, same in zip(loss_of(dataclasses.replace(GRPO, **options), given_), expected, strict=True):
            torch.testing.assert_close(found, same, rtol=1e-6, atol=1e-7)


def test_truncated_ratios_carry_no_gradient() -> None:
    policy = torch.tensor([-1.0, -3.0], requires_grad=True)
    ratios = truncated_ratios(policy, torch.tensor([-3.0, -1.0]), cap=2.0)
    assert not ratios.requires_grad and ratios.tolist() == pytest.approx([2.0, math.exp(-2)])


def test_dpo_metrics_are_means_over_pairs() -> None:
    given_ = inputs(PAIRS)
    assert given_.reference_logprobs is not None
    policy = [row.sum().item() for row in sampled(given_.policy_logprobs)]
    reference = [row.sum().item() for row in sampled(given_.reference_logprobs)]
    ratios = [own - other for own, other in zip(policy, reference, strict=True)]
    margins = [0.3 * (ratios[c] - ratios[r]) for c, r in given_.pairs.tolist()]
    for objective in (DPO, dataclasses.replace(DPO, nll_scale=0.5)):
        output = build_loss(objective)(given_)
        assert value(output, "dpo/margin") == pytest.approx(sum(margins) / 2, rel=1e-5)
        assert value(output, "dpo/accuracy") == sum(margin > 0 for margin in margins) / 2
        assert value(output, "policy/chosen_logprob") == pytest.approx((policy[0] + policy[4]) / 2, rel=1e-5)
        assert value(output, "policy/rejected_logprob") == pytest.approx(
            (policy[1] + policy[2]) / 2, rel=1e-5
        )
        assert value(output, "loss/dpo") == pytest.approx(
            sum(math.log1p(math.exp(-margin)) for margin in margins) / 2, rel=1e-5
        )


def test_the_total_is_made_of_its_terms() -> None:
    objective = OBJECTIVES["combined all"]
    output = build_loss(objective)(inputs(GROUPS))
    expected = (
        value(output, "loss/dpo")
        + objective.nll_scale * value(output, "loss/nll")
        + objective.entropy_scale * value(output, "loss/entropy")
        + objective.alpha * value(output, "loss/grpo")
    )
    assert value(output, "loss/total") == pytest.approx(expected, rel=1e-5)


def test_grpo_has_the_value_of_the_on_policy_objective() -> None:
    given_ = inputs(SINGLES)
    assert torch.equal(unit_ratios(given_.policy_logprobs), torch.ones(sum(LENGTHS)))
    num_sampled = [n - skip for n, skip in zip(LENGTHS, PROMPT_LABELS, strict=True)]
    expected = -sum(a * n for a, n in zip(ADVANTAGES, num_sampled, strict=True))
    output = build_loss(GRPO)(given_)
    assert output.loss.item() == pytest.approx(expected)
    assert value(output, "loss/total") == pytest.approx(expected / len(LENGTHS))
    assert "grpo/kl" not in output.metrics


def test_grpo_kl_is_a_mean_over_tokens() -> None:
    given_ = inputs(SINGLES)
    assert given_.reference_logprobs is not None
    columns = (given_.reference_logprobs, given_.policy_logprobs.detach())
    reference, policy = (torch.cat(sampled(column)) for column in columns)
    expected = (torch.exp(reference - policy) - (reference - policy) - 1).mean().item()
    assert value(build_loss(OBJECTIVES["grpo kl"])(given_), "grpo/kl") == pytest.approx(expected, rel=1e-5)


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


@pytest.mark.parametrize("name", OBJECTIVES)
def test_values_outside_of_the_mask_do_not_matter(name: str) -> None:
    loss, given_ = build_loss(OBJECTIVES[name]), given_inputs(OBJECTIVES[name])
    assert given_.reference_logprobs is not None
    unsampled = ~given_.loss_mask
    spoilt = dataclasses.replace(
        given_,
        policy_logprobs=given_.policy_logprobs.detach().masked_fill(unsampled, -math.inf).requires_grad_(),
        reference_logprobs=given_.reference_logprobs.masked_fill(unsampled, math.nan),
        generator_logprobs=given_.generator_logprobs.masked_fill(unsampled, math.nan),
        entropy=given_.entropy.detach().masked_fill(unsampled, math.nan).requires_grad_(),
    )
    output, expected = loss(spoilt), loss(given_)
    output.loss.backward()
    expected.loss.backward()
    assert torch.equal(output.loss, expected.loss)
    assert torch.equal(spoilt.policy_logprobs.grad, given_.policy_logprobs.grad)
    assert not spoilt.policy_logprobs.grad[unsampled].any()
    assert {m: value(output, m) for m in output.metrics} == {m: value(expected, m) for m in output.metrics}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_filler_adds_nothing_but_can_run_backward(name: str) -> None:
    loss = build_loss(OBJECTIVES[name])
    filler = LossInputs(
        policy_logprobs=torch.tensor([-3.0], requires_grad=True),
        entropy=torch.tensor([1.0]),
        reference_logprobs=torch.tensor([-1.0]),
        generator_logprobs=torch.zeros(1),
        loss_mask=torch.tensor([False]),
        sequence_starts=torch.tensor([0, 1]),
        pairs=torch.zeros(0, 2, dtype=torch.int64),
        pair_weights=torch.zeros(0),
        advantages=torch.zeros(1),
        rollout_weights=torch.zeros(1),
    )
    output = loss(filler)
    output.loss.backward()
    assert output.loss.item() == 0 and filler.policy_logprobs.grad.tolist() == [0]
    assert {(float(ratio.total), float(ratio.count)) for ratio in output.metrics.values()} == {(0, 0)}
    # Micro-batches of a step are reduced together, by name.
    assert output.metrics.keys() == loss(given_inputs(OBJECTIVES[name])).metrics.keys()


@pytest.mark.parametrize("scales", [{}, {"entropy_scale": 0.1, "kl_scale": 0.1}])
def test_means_over_rollouts_count_those_without_a_loss(scales: dict[str, float]) -> None:
    """As many more as there are of weight 1: each mean is half of what it was, and the sum stays."""
    loss, given_ = build_loss(dataclasses.replace(GRPO, **scales)), inputs(LAYOUTS[GRPO.name])
    alone = loss(given_)
    together = loss(dataclasses.replace(given_, num_zero_rollouts=int(given_.rollout_weights.sum())))
    assert torch.equal(together.loss, alone.loss)
    for name in {"loss/total", "loss/grpo", "loss/entropy"} & alone.metrics.keys():
        assert value(together, name) == pytest.approx(value(alone, name) / 2)
    for name in {"policy/entropy", "grpo/kl"} & alone.metrics.keys():  # over tokens
        assert value(together, name) == value(alone, name)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_metrics_are_declared_and_do_not_hold_the_graph(name: str) -> None:
    output = build_loss(OBJECTIVES[name])(given_inputs(OBJECTIVES[name]))
    assert not any(
        ratio.total.requires_grad or ratio.count.requires_grad for ratio in output.metrics.values()
    )
    check_declared(output.metrics)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_needed_reference_is_asserted(name: str) -> None:
    objective = OBJECTIVES[name]
    loss, without = (
        build_loss(objective),
        dataclasses.replace(given_inputs(objective), reference_logprobs=None),
    )
    assert loss.needs_reference == (objective.name is not ObjectiveName.grpo or objective.kl_scale > 0)
    if loss.needs_reference:
        with pytest.raises(AssertionError, match="reference"):
            loss(without)
    else:
        assert loss(without).loss.isfinite()
