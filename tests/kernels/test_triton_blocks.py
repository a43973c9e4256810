"""Each Triton block function alone, against the textbook formulas in fp64."""

from __future__ import annotations

import pytest
import torch
from rlstack_kernels import triton_blocks
from rlstack_kernels.statistics import LOWEST, SavedBlock, new_statistics

from tests.kernels.block_cases import (
    FIRST,
    Block,
    check_statistics,
    expected_gradient,
    folded,
    gradient,
    log_sum_and_entropy,
    make_block,
    make_coefficients,
    save,
)
from tests.kernels.oracle import relative_error

WIDTHS = [1, 7, 127, 129, 333, 4096, 4429]  # the last in two tiles
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
ROUNDING = {torch.float32: 2e-6, torch.bfloat16: 2**-7, torch.float16: 2**-10}  # the interpreter truncates

widths = pytest.mark.parametrize("width", WIDTHS)
dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=str)
temperatures = pytest.mark.parametrize("tempered", [False, True], ids=["cold", "tempered"])


@widths
@dtypes
@temperatures
def test_fold(width: int, dtype: torch.dtype, tempered: bool, triton_device: str) -> None:
    block = make_block(width, triton_device, dtype=dtype, tempered=tempered)
    statistics = folded(block)
    check_statistics(block, statistics)
    assert torch.equal(statistics, folded(block))


@pytest.mark.parametrize("cuts", [(1,), (128,), (100, 101, 300)])
def test_folds_of_pieces_make_up_the_whole(cuts: tuple[int, ...], triton_device: str) -> None:
    block = make_block(333, triton_device, tempered=True)
    check_statistics(block, folded(block, cuts=cuts))


@pytest.mark.parametrize("offset", [1e4, -1e4, 200.0, -200.0])
def test_an_offset_of_all_logits_costs_no_digits(offset: float, triton_device: str) -> None:
    block = make_block(333, triton_device, offset=offset)
    maximum, total, moment, _ = folded(block, cuts=(100,)).double()
    log_sum, entropy = log_sum_and_entropy(block.scaled - offset)
    torch.testing.assert_close(maximum - offset + total.log(), log_sum, atol=2e-6, rtol=0)
    torch.testing.assert_close(total.log() - moment / total, entropy, atol=2e-6, rtol=0)


@dtypes
def test_large_logits(dtype: torch.dtype, triton_device: str) -> None:
    """So far apart that one of a row has all of p."""
    block = make_block(333, triton_device, dtype=dtype, scale=1e4)
    statistics = folded(block, cuts=(100,))
    check_statistics(block, statistics, tolerance=1e-9)
    _, total, moment, _ = statistics
    assert (total >= 1).all() and (total.log() - moment / total >= 0).all()


def test_minus_infinity_counts_for_nothing(triton_device: str) -> None:
    block = make_block(333, triton_device, tempered=True)
    block.logits[:, 5:130] = -torch.inf
    block.logits[:, 0] = -torch.inf
    check_statistics(block, folded(block))
    statistics = folded(block, cuts=(1, 10, 100))  # nothing else in the first and in the third piece
    check_statistics(block, statistics)
    before = statistics.clone()
    block.logits.fill_(-torch.inf)
    triton_blocks.fold(
        block.logits, block.labels, None, statistics, first_column=0, saved=None, overwrite=False
    )
    assert torch.equal(statistics, before)


def test_a_block_of_minus_infinity_adds_nothing_to_the_statistics_of_nothing(triton_device: str) -> None:
    block = make_block(333, triton_device)
    block.logits.fill_(-torch.inf)
    statistics = folded(block)
    assert torch.equal(statistics[:3], new_statistics(5, block.logits)[:3])
    assert torch.equal(statistics[3], torch.where(block.is_label.any(-1), LOWEST, 0.0))


def test_nan_stays_in_its_row(triton_device: str) -> None:
    block, others = make_block(333, triton_device), [0, 1, 3, 4]
    clean, coefficients = folded(block, cuts=(100,)), make_coefficients(block)
    block.logits[2, 50] = torch.nan
    statistics = folded(block, cuts=(100,))
    assert statistics[1:3, 2].isnan().all()
    assert torch.equal(statistics[:, others], clean[:, others])
    for source in (coefficients, make_coefficients(block)):
        found = gradient(block, source, torch.empty_like(block.logits))
        assert found[2, 50].isnan() and not found[others].isnan().any()
    assert found[2][~block.is_label[2]].isnan().all()  # the row's maximum and sum are NaN, too


@widths
@dtypes
@temperatures
def test_logits_gradient(width: int, dtype: torch.dtype, tempered: bool, triton_device: str) -> None:
    block = make_block(width, triton_device, tempered=tempered)
    coefficients, wanted = make_coefficients(block), expected_gradient(block)
    memory = torch.full((5, width + 3), torch.nan, dtype=dtype, device=triton_device)
    assert relative_error(gradient(block, coefficients, memory[:, :width]), wanted) <= ROUNDING[dtype]
    assert memory[:, width:].isnan().all()


@widths
@dtypes
@temperatures
def test_logits_gradient_in_place(width: int, dtype: torch.dtype, tempered: bool, triton_device: str) -> None:
    block = make_block(width, triton_device, dtype=dtype, tempered=tempered)
    coefficients, wanted = make_coefficients(block), expected_gradient(block)
    assert relative_error(gradient(block, coefficients, block.logits), wanted) <= ROUNDING[dtype]


@widths
@dtypes
def test_saved_gradient(width: int, dtype: torch.dtype, triton_device: str) -> None:
    block = make_block(width, triton_device)
    block.logits[:, 1::3] = -torch.inf
    saved, statistics = save(block, dtype)
    check_statistics(block, statistics)
    assert saved.values.amax() == 1 and not saved.values[:, 1::3].any()
    coefficients, wanted = make_coefficients(block), expected_gradient(block)
    triton_blocks.saved_gradient(saved, block.labels, coefficients, first_column=FIRST)
    assert relative_error(saved.values, wanted) <= ROUNDING[dtype]
    assert not saved.values.masked_fill(block.is_label, 0.0)[:, 1::3].any()


@pytest.mark.parametrize("above", [60.0, 1e4, 1e30])
def test_what_is_saved_may_be_far_below_the_maximum(above: float, triton_device: str) -> None:
    """The maximum is in another block. Whether p is e^-60 or 0 here: both gradients say so."""
    block = make_block(129, triton_device)
    saved, _ = save(block, torch.float32)
    coefficients = make_coefficients(block)
    coefficients[0] += above
    wanted = gradient(block, coefficients, torch.empty_like(block.logits))
    triton_blocks.saved_gradient(saved, block.labels, coefficients, first_column=FIRST)
    torch.testing.assert_close(saved.values, wanted, rtol=1e-4, atol=0)
    assert wanted.masked_fill(block.is_label, 0.0).any() == (above == 60.0)


@pytest.mark.parametrize("garbage", [1e4, -1e4, torch.nan, torch.inf])
def test_ignored_rows_are_exactly_zero_whatever_is_in_them(garbage: float, triton_device: str) -> None:
    block = make_block(333, triton_device, tempered=True)
    coefficients = make_coefficients(block)
    coefficients[:, 1:3] = 0.0
    saved, _ = save(block, torch.float32)
    for tensor in (block.logits, *saved):
        tensor[1:3] = garbage
    triton_blocks.saved_gradient(saved, block.labels, coefficients, first_column=FIRST)
    for found in (saved.values, gradient(block, coefficients, block.logits)):
        assert not found[1:3].any() and found[[0, 3, 4]].any(-1).all()


@pytest.mark.parametrize("shape", [(0, 7), (5, 0), (0, 0)], ids=str)
def test_empty_blocks(shape: tuple[int, int], triton_device: str) -> None:
    logits = torch.zeros(shape, device=triton_device)
    coefficients = torch.zeros(5, shape[0], device=triton_device)
    block = Block(logits, torch.zeros(shape[0], dtype=torch.int64, device=triton_device))
    saved = SavedBlock(torch.zeros_like(logits), coefficients.t())
    assert torch.equal(folded(block, saved=saved), new_statistics(shape[0], logits))
    assert gradient(block, coefficients, logits).shape == shape
    triton_blocks.saved_gradient(saved, block.labels, coefficients, first_column=FIRST)


def test_fp64_is_refused(triton_device: str) -> None:
    block = make_block(7, triton_device, dtype=torch.float64)
    coefficients = make_coefficients(block)
    with pytest.raises(TypeError, match=r"float64.*'torch'"):
        folded(block)
    with pytest.raises(TypeError, match=r"float64.*'torch'"):
        gradient(Block(block.logits.float(), block.labels), coefficients, block.logits)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs 4 GiB that the interpreter would copy")
def test_rows_may_lie_more_than_2_31_elements_apart() -> None:
    near = make_block(333, "cuda", num_tokens=2, dtype=torch.bfloat16)
    stride = 2**31 + 64
    memory = torch.zeros(stride + 333, dtype=torch.bfloat16, device="cuda")
    far = Block(memory.as_strided((2, 333), (stride, 1)).copy_(near.logits), near.labels)
    assert torch.equal(folded(far), folded(near))
    coefficients = make_coefficients(near)
    assert torch.equal(gradient(far, coefficients, far.logits), gradient(near, coefficients, near.logits))
