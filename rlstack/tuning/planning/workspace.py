"""What a backward pass needs for as long as it runs, besides what the forward pass has kept."""

from __future__ import annotations

from typing import NamedTuple

from rlstack.config.schema import LogprobKernel, LogprobMode
from rlstack.model.weight_names import padded_vocab_size
from rlstack.tuning.parts import Layout
from rlstack.tuning.planning.activations import Layers
from rlstack.tuning.planning.demand import Demand
from rlstack.tuning.planning.derivation import Figure, derive


class KernelSizes(NamedTuple):
    """Sizes in `rlstack_kernels`, repeated here because that package imports torch; a test compares them."""

    block_tokens: int
    block_columns: int
    panel_elements: int
    save_budget_bytes: int


KERNEL_SIZES = {
    Layers.transformer_engine: KernelSizes(4224, 2048, 2**25, save_budget_bytes=2**30),
    Layers.local: KernelSizes(1024, 1024, 2**22, save_budget_bytes=2**26),
}
# Of a chunk of its torch fallback, with four tensors of its logits' size in fp32; its kernels take less.
_LIGER_TOKENS = 512


def backward_workspace(demand: Demand, layout: Layout, *, stage: int, layers: Layers) -> Figure:
    """Bytes: of the logprobs on the last stage, or of a layer, whichever is more."""
    layer = _layer_workspace(demand, layout, layers)
    if stage < layout.pipeline_parallel - 1:
        return layer
    return max(layer, logprob_workspace(demand, layout, layers), key=lambda figure: figure.value)


def logprob_workspace(demand: Demand, layout: Layout, layers: Layers) -> Figure:
    """Of `rlstack_kernels.linear_logprob_entropy`: what stands in for the logits, and the hidden states'
    gradient, in fp32 and in the weights' precision, beside the hidden states gathered."""
    tokens, itemsize, blocks = demand.rank_tokens(layout), demand.itemsize, KERNEL_SIZES[layers]
    width = padded_vocab_size(demand.architecture, layout.tensor_parallel) // layout.tensor_parallel
    inputs = {"tokens": tokens, "hidden": demand.architecture.hidden_size, "itemsize": itemsize}
    gradients = "tokens*hidden*(4 + 2*itemsize)"
    if demand.config.policy.logprob_kernel is LogprobKernel.liger:
        return derive(
            "logprobs, by Liger",
            "B",
            f"{gradients} + itemsize*width*hidden + (itemsize + 16)*min(chunk, tokens)*width",
            width=width,
            chunk=_LIGER_TOKENS,
            **inputs,
        )
    if saves_logprobs(demand, layout, layers):
        formula = f"{gradients} + itemsize*tokens*width"
        return derive("logprobs, saved", "B", formula, width=width, **inputs)
    return derive(
        "logprobs, recomputed",
        "B",
        f"{gradients} + itemsize*min(max(panel, tokens*columns), tokens*width)"
        " + 4*min(block_tokens, tokens)*columns",
        panel=blocks.panel_elements,
        width=width,
        block_tokens=blocks.block_tokens,
        columns=blocks.block_columns,
        **inputs,
    )


def saves_logprobs(demand: Demand, layout: Layout, layers: Layers) -> bool:
    """Whether policy.logprob_mode keeps the logits' exponentials of the largest micro-batch."""
    policy = demand.config.policy
    if policy.logprob_kernel is LogprobKernel.liger:
        return False
    if policy.logprob_mode is not LogprobMode.auto:
        return policy.logprob_mode is LogprobMode.save
    width = padded_vocab_size(demand.architecture, layout.tensor_parallel) // layout.tensor_parallel
    save_gib = policy.logprob_save_gib
    budget = KERNEL_SIZES[layers].save_budget_bytes if save_gib is None else save_gib * 2**30
    return demand.rank_tokens(layout) * width * demand.itemsize <= budget


def _layer_workspace(demand: Demand, layout: Layout, layers: Layers) -> Figure:
    """Gradients of the feed-forward part's activations, and of its larger weight before it is added up."""
    fused = layers is Layers.transformer_engine and demand.fused
    # Fused, the product's, gate's and up's; no weight has a gradient beside main_grad.
    formula = "tokens*(3*ffn/tp + 4*hidden)" if fused else "tokens*(5*ffn/tp + 4*hidden) + 2*ffn/tp*hidden"
    return derive(
        "backward of a layer",
        "B",
        f"itemsize*({formula})",
        itemsize=demand.itemsize,
        tokens=demand.rank_tokens(layout),
        ffn=demand.architecture.ffn_size,
        hidden=demand.architecture.hidden_size,
        tp=layout.tensor_parallel,
    )
