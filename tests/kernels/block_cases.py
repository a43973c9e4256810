"""Blocks of logits, and what the block functions have to make of them by the textbook formulas in fp64."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from rlstack_kernels import triton_blocks
from rlstack_kernels.statistics import LOWEST, SavedBlock, new_statistics
from torch import Tensor

from tests.kernels.oracle import entropy_of

FIRST = 1000  # the global id of column 0
AT_LABEL = 7.0  # any number: the functions only have to put it where it belongs


@dataclass(frozen=True, slots=True)
class Block:
    logits: Tensor  # [t, v], rows strided
    labels: Tensor  # [t] global ids
    inv_temp: Tensor | None = None  # [t] fp32

    @property
    def scaled(self) -> Tensor:
        """[t, v] fp64."""
        scaled = self.logits.double()
        return scaled if self.inv_temp is None else scaled * self.inv_temp.double()[:, None]

    @property
    def is_label(self) -> Tensor:
        """[t, v] bool."""
        return torch.arange(self.logits.size(1), device=self.labels.device) + FIRST == self.labels[:, None]


def make_block(
    width: int,
    device: str,
    *,
    num_tokens: int = 5,
    dtype: torch.dtype = torch.float32,
    tempered: bool = False,
    scale: float = 3.0,
    offset: float = 0.0,
) -> Block:
    """The labels: the first, the last and a middle column, and one on either side of the block."""
    generator = torch.Generator().manual_seed(width)
    memory = torch.randn(num_tokens, width + 3, generator=generator) * scale + offset
    labels = torch.tensor([0, width - 1, width // 2, -1, width])[:num_tokens] + FIRST
    inv_temp = (torch.rand(num_tokens, generator=generator) + 0.5).to(device)
    if not tempered:
        return Block(memory.to(device, dtype)[:, :width], labels.to(device))
    return Block(memory.to(device, dtype)[:, :width], labels.to(device, torch.int32), inv_temp)


def make_slopes(block: Block) -> Tensor:
    """[2, t] of the loss in logprob and entropy."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, block.logits.size(0), generator=generator).to(block.logits.device)


def folded(block: Block, *, cuts: tuple[int, ...] = (), saved: SavedBlock | None = None) -> Tensor:
    """[4, t] after one fold for each piece of the block; columns of a wider tensor."""
    num_tokens, width = block.logits.shape
    statistics = new_statistics(num_tokens + 2, block.logits.float())[:, 1:-1]
    for start, stop in zip((0, *cuts), (*cuts, width), strict=True):
        triton_blocks.fold(
            block.logits[:, start:stop],
            block.labels,
            block.inv_temp,
            statistics,
            first_column=FIRST + start,
            saved=saved,
            overwrite=False,
        )
    return statistics


def save(block: Block, dtype: torch.dtype) -> tuple[SavedBlock, Tensor]:
    """What a fold saves, and its statistics. NaN is written over where it belongs, and only there."""
    num_tokens, width = block.logits.shape
    tiles = -(-width // triton_blocks.tile_width(width))
    values = block.logits.new_full((num_tokens, width + 3), torch.nan, dtype=dtype)
    maxima = block.logits.new_full((num_tokens, tiles + 2), torch.nan, dtype=torch.float32)
    saved = SavedBlock(values[:, :width], maxima[:, 1:-1])
    statistics = folded(block, saved=saved)
    assert values[:, width:].isnan().all() and maxima[:, [0, -1]].isnan().all()
    assert not saved.values.isnan().any() and not saved.maxima.isnan().any()
    return saved, statistics


def gradient(block: Block, coefficients: Tensor, out: Tensor) -> Tensor:
    triton_blocks.logits_gradient(
        block.logits,
        block.labels,
        block.inv_temp,
        coefficients,
        out,
        first_column=FIRST,
        overwrite=out is block.logits,
    )
    return out


def log_sum_and_entropy(scaled: Tensor) -> tuple[Tensor, Tensor]:
    """[t] each, with autograd; columns of -inf take no part."""
    return scaled.logsumexp(-1), entropy_of(torch.log_softmax(scaled, -1))


def check_statistics(block: Block, statistics: Tensor, *, tolerance: float = 2e-6) -> None:
    """By what follows from them; `tolerance` where no logit is beyond 16."""
    scaled = block.scaled
    tolerance *= max(1.0, scaled[scaled.isfinite()].abs().max().item() / 16)
    maximum, total, moment, label = statistics.double()
    log_sum, entropy = log_sum_and_entropy(scaled)
    label_logit = torch.where(block.is_label, scaled.clamp(min=LOWEST), 0.0).sum(-1).float().double()
    for found, wanted in (
        (maximum, scaled.amax(-1)),
        (maximum + total.log(), log_sum),
        (total.log() - moment / total, entropy),
        (label, label_logit),
    ):
        torch.testing.assert_close(found, wanted, atol=tolerance, rtol=0)


def make_coefficients(block: Block) -> Tensor:
    """[5, t] as if the block were the whole vocabulary."""
    by_logprob, by_entropy = make_slopes(block).double()
    log_sum, entropy = log_sum_and_entropy(block.scaled)
    maximum = block.scaled.amax(-1)
    mean = log_sum - maximum - entropy
    rows = torch.stack([by_logprob - by_entropy * mean, by_entropy, torch.full_like(mean, AT_LABEL)])
    rows = rows if block.inv_temp is None else rows * block.inv_temp
    return torch.cat([torch.stack([maximum, log_sum - maximum]), rows]).float()


def expected_gradient(block: Block) -> Tensor:
    """[t, v] fp64 by autograd: as if no label were in the block, and then the labels' own."""
    logits = block.logits.double().requires_grad_()
    log_sum, entropy = log_sum_and_entropy(Block(logits, block.labels, block.inv_temp).scaled)
    by_logprob, by_entropy = make_slopes(block)
    (found,) = torch.autograd.grad((entropy * by_entropy - log_sum * by_logprob).sum(), logits)
    at_label = AT_LABEL if block.inv_temp is None else AT_LABEL * block.inv_temp.double()[:, None]
    return torch.where(block.is_label, at_label, found)
