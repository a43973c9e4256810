"""The chunked, vocabulary-parallel logprob head against plain torch."""

from __future__ import annotations

import datetime
import threading
from collections.abc import Callable

import pytest
import torch
import torch.distributed as dist
from rlstack_kernels.linear_logprob_entropy import linear_logprob_entropy
from torch import Tensor

NUM_TOKENS, HIDDEN, VOCAB = 13, 16, 37


def plain(hidden: Tensor, weight: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    logprobs = torch.log_softmax((hidden @ weight.t()).float(), dim=-1)
    entropy = -(logprobs.exp() * logprobs).sum(-1)
    return logprobs.gather(1, labels[:, None])[:, 0], entropy


def make_inputs(scale: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(NUM_TOKENS, HIDDEN, generator=generator) * scale
    weight = torch.randn(VOCAB, HIDDEN, generator=generator)
    labels = torch.randint(0, VOCAB, (NUM_TOKENS,), generator=generator)
    return hidden, weight, labels, torch.randn(2, NUM_TOKENS, generator=generator)


def differentiate(
    function: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    hidden: Tensor,
    weight: Tensor,
    slopes: Tensor,
) -> list[Tensor]:
    """Both outputs, then the gradients of hidden and weight."""
    hidden, weight = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
    outputs = function(hidden, weight)
    gradients = torch.autograd.grad((torch.stack(outputs) * slopes).sum(), (hidden, weight))
    return [*(output.detach() for output in outputs), *gradients]


@pytest.mark.parametrize("chunk_tokens", [1, 5, 100])
@pytest.mark.parametrize("scale", [1.0, 40.0])  # logits up to several hundred: an unshifted sum overflows
def test_matches_plain_torch(scale: float, chunk_tokens: int) -> None:
    hidden, weight, labels, slopes = make_inputs(scale)

    def chunked(hidden: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        padded = torch.cat([weight, torch.ones(11, HIDDEN)])
        return linear_logprob_entropy(
            hidden,
            padded,
            labels,
            vocab_start=0,
            vocab_valid=VOCAB,
            group=None,
            chunk_tokens=chunk_tokens,
        )

    expected = differentiate(lambda h, w: plain(h, w, labels), hidden, weight, slopes)
    found = differentiate(chunked, hidden, weight, slopes)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=2e-5 * scale, rtol=1e-4)


def test_bf16_matches_plain_torch_within_its_rounding() -> None:
    hidden, weight, labels, slopes = make_inputs(1.0)

    def chunked(hidden: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        return linear_logprob_entropy(
            hidden, weight, labels, vocab_start=0, vocab_valid=VOCAB, group=None, chunk_tokens=5
        )

    hidden, weight = hidden.bfloat16(), weight.bfloat16()
    expected = differentiate(lambda h, w: plain(h, w, labels), hidden, weight, slopes)
    found = differentiate(chunked, hidden, weight, slopes)
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype
        torch.testing.assert_close(one, other, atol=0.03, rtol=0.03)


def test_vocabulary_may_be_cut_over_ranks_of_which_one_holds_padding_only() -> None:
    hidden, weight, labels, slopes = make_inputs(3.0)
    rows, size = 20, 3  # 37 valid rows: 20, 17, none
    padded = torch.cat([weight, torch.ones(rows * size - VOCAB, HIDDEN)])
    results: dict[int, list[Tensor]] = {}
    store = dist.HashStore()

    def rank_of(rank: int) -> None:
        group = dist.ProcessGroupGloo(store, rank, size, datetime.timedelta(seconds=30))

        def chunked(hidden: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
            return linear_logprob_entropy(
                hidden,
                weight,
                labels,
                vocab_start=rank * rows,
                vocab_valid=VOCAB - rank * rows,
                group=group,
                chunk_tokens=4,
            )

        results[rank] = differentiate(chunked, hidden, padded[rank * rows : (rank + 1) * rows], slopes)

    threads = [threading.Thread(target=rank_of, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = differentiate(lambda h, w: plain(h, w, labels), hidden, weight, slopes)
    for rank in range(size):
        for found, wanted in zip(results[rank][:2], expected[:2], strict=True):
            torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    hidden_gradient = sum(results[rank][2] for rank in range(size))
    weight_gradient = torch.cat([results[rank][3] for rank in range(size)])
    torch.testing.assert_close(hidden_gradient, expected[2], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(weight_gradient[:VOCAB], expected[3], atol=1e-4, rtol=1e-4)
    assert not weight_gradient[VOCAB:].any()
