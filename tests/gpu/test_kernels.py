"""Logprobs and entropies of real sizes through Triton: values, gradients, and no more memory than planned.

One GPU of 80 GB. The tests in tests/kernels run on it as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from rlstack_kernels import linear_logprob_entropy

from rlstack.config.load import load_config
from rlstack.model.known_models import KNOWN_MODELS
from rlstack.tuning.parts import Layout
from rlstack.tuning.planning.activations import Layers
from rlstack.tuning.planning.assumptions import Assumptions
from rlstack.tuning.planning.demand import Demand
from rlstack.tuning.planning.hardware import gpu_of
from rlstack.tuning.planning.workspace import logprob_workspace

pytestmark = pytest.mark.gpu

MATH = Path(__file__).parents[2] / "configs" / "paper" / "math_s10.yaml"
LLAMA_8B, LLAMA_70B, QWEN_32B = (4096, 128256), (8192, 128256 // 8), (5120, 151936 // 8)  # H, V of a rank
SEEN = 512  # tokens that fp64 is asked for
BF16_ERROR = 2e-2  # of sums of thousands of products, relative to their size
Inputs = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


@pytest.fixture(autouse=True)
def empty_gpu() -> Iterator[None]:
    yield
    torch.cuda.empty_cache()


def inputs(num_tokens: int, hidden: int, vocab: int) -> Inputs:
    """Hidden states, weight and labels: logits of standard deviation 2."""
    generator = torch.Generator("cuda").manual_seed(0)

    def normal(*shape: int, scale: float) -> torch.Tensor:
        numbers = torch.randn(*shape, generator=generator, device="cuda", dtype=torch.bfloat16)
        return (numbers * scale).requires_grad_()

    labels = torch.randint(vocab, (num_tokens,), generator=generator, device="cuda")
    return normal(num_tokens, hidden, scale=2 / hidden**0.5), normal(vocab, hidden, scale=1.0), labels


@pytest.mark.parametrize("mode", ["save", "recompute"])
@pytest.mark.parametrize(("hidden", "vocab"), [LLAMA_8B, LLAMA_70B, QWEN_32B])
def test_values_and_gradients_are_those_of_fp64(hidden: int, vocab: int, mode: str) -> None:
    states, weight, labels = inputs(SEEN, hidden, vocab)
    outcomes = []
    for implementation in ("triton", "reference"):
        out = linear_logprob_entropy(states, weight, labels, mode=mode, implementation=implementation)
        assert out.entropy is not None
        loss = (out.logprobs - 0.1 * out.entropy).sum()
        outcomes.append((out.logprobs, out.entropy, *torch.autograd.grad(loss, (states, weight))))
    for found, expected in zip(*outcomes, strict=True):
        error = (found.double() - expected.double()).norm() / expected.double().norm()
        assert error < BF16_ERROR
    assert (outcomes[0][0] - outcomes[1][0]).abs().max() < 1e-3


@pytest.mark.parametrize("mode", ["save", "recompute"])
def test_takes_no_more_memory_than_the_planner_says(mode: str) -> None:
    demand = Demand(
        config=load_config(MATH, [f"policy.logprob_mode={mode}"]),
        architecture=KNOWN_MODELS["Llama-3.1-8B"],
        gpu=gpu_of("h200"),
        assumptions=Assumptions(),
        intervals=(1,),
    )
    states, weight, labels = inputs(demand.largest_micro_batch, *LLAMA_8B)
    main_grad = torch.zeros_like(weight, dtype=torch.float32)
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    out = linear_logprob_entropy(states, weight, labels, mode=mode, main_grad=main_grad)
    assert out.entropy is not None
    (out.logprobs - 0.1 * out.entropy).sum().backward()
    torch.cuda.synchronize()
    taken = torch.cuda.max_memory_allocated() - before
    planned = logprob_workspace(demand, Layout(), Layers.transformer_engine).value
    assert taken < 1.15 * planned
