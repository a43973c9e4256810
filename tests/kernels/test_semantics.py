"""What the arguments of `linear_logprob_entropy` mean."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from rlstack_kernels import linear_logprob_entropy, logprob_entropy

from tests.kernels.oracle import (
    backends,
    check,
    exact_case,
    expected,
    found,
    make_case,
    modes,
)


@backends
@modes
@pytest.mark.parametrize("ignore_index", [-100, -1, 7, 131])
def test_ignored_tokens_are_exact_zeros(ignore_index: int, mode: str, backend: tuple[str, str]) -> None:
    """131 is no column of 129, but may be one of a tile."""
    case = make_case(17, 21, 129)
    case.labels[case.labels == ignore_index] = 0
    case.labels[::3] = ignore_index
    outcome = found(case, mode, backend, ignore_index=ignore_index)
    check(outcome, expected(case, ignore_index=ignore_index))
    for tensor in outcome[:3]:
        assert not tensor[::3].any() and tensor[1::3].any()


@backends
@modes
def test_all_tokens_ignored(mode: str, backend: tuple[str, str]) -> None:
    case = make_case(17, 21, 129)
    case.labels.fill_(-100)
    assert not any(tensor.any() for tensor in found(case, mode, backend)[:4])


@backends
@modes
def test_every_token_may_have_its_temperature(mode: str, backend: tuple[str, str]) -> None:
    case = exact_case(17, 21, 129, inv_temp=torch.linspace(0.1, 2.0, 17))
    check(found(case, mode, backend), expected(case))


@backends
@modes
def test_one_temperature_is_that_of_all_tokens(mode: str, backend: tuple[str, str]) -> None:
    case = make_case(17, 21, 129, inv_temp=0.7)
    check(found(case, mode, backend), expected(case))
    vector = replace(case, inv_temp=torch.full((17,), 0.7))
    for one, other in zip(found(case, mode, backend)[:4], found(vector, mode, backend)[:4], strict=True):
        assert torch.equal(one, other)


@backends
@modes
@pytest.mark.parametrize("label", [0, 127, 128, 299])
def test_a_shard_starts_anywhere_in_the_vocabulary(label: int, mode: str, backend: tuple[str, str]) -> None:
    """300 columns of which this is the only rank: ids count from `vocab_start`."""
    case = make_case(3, 21, 300)
    case.labels.fill_(label)
    wanted = expected(case)
    case.labels.add_(1000)
    check(found(case, mode, backend, vocab_start=1000), wanted)


@backends
@modes
@pytest.mark.parametrize("valid", [1, 127, 128, 300])
def test_padding_is_as_if_it_were_not_there(valid: int, mode: str, backend: tuple[str, str]) -> None:
    case = make_case(17, 21, 333, vocab_valid=valid)
    case.labels.remainder_(valid)
    case.weight[valid:] = 1e4
    outcome = found(case, mode, backend)
    assert not outcome.weight_grad[valid:].any()
    sliced = replace(case, weight=case.weight[:valid], vocab_valid=None)
    check(outcome._replace(weight_grad=outcome.weight_grad[:valid]), expected(sliced))


@pytest.mark.parametrize("label", [-1, -7, 129, 2**31 + 5])
@pytest.mark.parametrize("operator", [linear_logprob_entropy, logprob_entropy])
def test_a_label_outside_the_vocabulary_is_refused(operator, label: int) -> None:
    case = make_case(17, 21, 140)
    case.labels.remainder_(129)[5] = label
    operands = (case.hidden, case.weight) if operator is linear_logprob_entropy else (torch.zeros(17, 140),)
    with pytest.raises(ValueError, match=rf"{label}"):
        operator(*operands, case.labels, vocab_valid=129)


def test_labels_need_no_vocab_valid_to_be_checked() -> None:
    case = make_case(17, 21, 129)
    case.labels[5] = 129
    with pytest.raises(ValueError, match="129"):
        linear_logprob_entropy(case.hidden, case.weight, case.labels)


@pytest.mark.parametrize(
    ("name", "known"),
    [("entropy", "metric"), ("mode", "recompute"), ("implementation", "triton"), ("hidden_grad", "partial")],
)
def test_an_unknown_word_is_refused_with_those_that_are_known(name: str, known: str) -> None:
    case = make_case(3, 5, 7)
    with pytest.raises(ValueError, match=rf"(?s)(?=.*{name})(?=.*nonsense)(?=.*{known})"):
        linear_logprob_entropy(case.hidden, case.weight, case.labels, **{name: "nonsense"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": torch.zeros(17, 1, dtype=torch.int64)}, r"labels has the shape \[17, 1\]; \[17\]"),
        ({"labels": torch.zeros(16, dtype=torch.int64)}, r"labels has the shape \[16\]; \[17\]"),
        ({"labels": torch.zeros(17)}, "labels are torch.float32; int64 or int32"),
        ({"weight": torch.zeros(9, 5)}, r"weight has the shape \[9, 5\]; \[9, 4\]"),
        ({"main_grad": torch.zeros(8, 4)}, r"main_grad has the shape \[8, 4\]; \[9, 4\]"),
        ({"vocab_start": 3}, r"label 0 is neither in \[3, 12\)"),
    ],
)
def test_operands_that_do_not_go_together_are_refused(change, message) -> None:
    operands = {
        "hidden": torch.zeros(17, 4),
        "weight": torch.zeros(9, 4),
        "labels": torch.zeros(17, dtype=torch.int64),
    }
    with pytest.raises(ValueError, match=message):
        linear_logprob_entropy(**operands | change)
