"""The floating-point operations that a model asks for, whoever computes it and however."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from rlstack.model.architecture import Architecture


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFlops:
    """Model FLOPs: those of the matrix products, a multiplication and an addition as two.

    Counted as in PaLM (Chowdhery et al. 2022, arXiv 2204.02311, appendix B) and, with causal attention, in
    Megatron-LM's num_floating_point_operations: a query sees half of its sequence's keys on average, t^2 / 2
    pairs among t tokens, since kernels leave out what the mask hides. Norms, activations, the softmax, rotary
    embeddings and the look-up of the embedding are left out, and so is what is computed a second time: layers
    or logits in the backward pass.
    """

    matrices: int  # weights that a token is multiplied with: those of the layers and the output layer
    attention_width: int  # layers x heads x size of a head

    @classmethod
    def of(cls, architecture: Architecture) -> ModelFlops:
        """Of a dense model; a tied output layer is multiplied with as any other."""
        a = architecture
        projections = (2 * a.num_heads + 2 * a.num_kv_heads) * a.head_dim * a.hidden_size
        feed_forward = 3 * a.ffn_size * a.hidden_size  # gate, up, down
        return cls(
            matrices=a.num_layers * (projections + feed_forward) + a.vocab_size * a.hidden_size,
            attention_width=a.num_layers * a.num_heads * a.head_dim,
        )

    @property
    def linear(self) -> int:
        """FLOPs of one token in the forward pass, attention left out."""
        return 2 * self.matrices

    @property
    def attention(self) -> int:
        """FLOPs of one token per token of its sequence in the forward pass: scores and weighted values."""
        return 2 * self.attention_width

    def forward(self, num_tokens: int) -> int:
        """Of the forward pass of one sequence."""
        return self.linear * num_tokens + self.attention * num_tokens**2

    def forward_of(self, lengths: Iterable[int]) -> int:
        """Of the forward pass of sequences of `lengths` tokens, packed or not."""
        return sum(map(self.forward, lengths))

    @staticmethod
    def training(forward: int) -> int:
        """Of the forward and the backward pass, which has twice as many: by the inputs and by the weights."""
        return 3 * forward
