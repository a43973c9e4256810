"""A reward model run by transformers: on CPU, and for heads that vLLM does not load."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification

from rlstack.rewards.token_batches import token_batches

HEAD_NAMES = {r"^v_head\.": "score."}  # Athene-RM's head, as transformers calls it


class TransformersEngine:
    """Scores of token sequences, each read at its last token."""

    def __init__(self, folder: Path, *, batch_tokens: int) -> None:
        """Load the sequence classifier in `folder`: in fp32 on CPU, in its own precision on the GPU.

        Raises:
            ValueError: its scores are not read at the last token, or its folder lacks weights.
        """
        cuda = torch.cuda.is_available()
        if not cuda:
            torch.set_num_threads(1)  # the other roles need the cores too
        loaded: Any = AutoModelForSequenceClassification.from_pretrained(
            folder,
            num_labels=1,
            dtype="auto" if cuda else torch.float32,
            key_mapping=HEAD_NAMES,
            output_loading_info=True,
            trust_remote_code=False,
            use_safetensors=True,  # the other format is a pickle
        )
        model, report = loaded
        if missing := report["missing_keys"]:  # transformers would draw them at random
            raise ValueError(f"{folder} has no weights for {', '.join(sorted(missing))}")
        if not isinstance(getattr(model, "score", None), nn.Linear):
            raise ValueError(f"{type(model).__name__} is not a model whose score is read at the last token")
        self._device = torch.device("cuda" if cuda else "cpu")
        self._model = model.eval().to(self._device)
        self._batch_tokens = batch_tokens

    @torch.inference_mode()
    def score(self, sequences: Sequence[Sequence[int]]) -> list[float]:
        """One score per sequence, in their order."""
        lengths = [len(sequence) for sequence in sequences]
        scores = [0.0] * len(sequences)
        for batch in token_batches(lengths, self._batch_tokens):
            of_batch = self._forward([sequences[i] for i in batch]).tolist()
            for i, score in zip(batch, of_batch, strict=True):
                scores[i] = score
        return scores

    def _forward(self, sequences: Sequence[Sequence[int]]) -> Tensor:
        """[N] float32. Not by the model's own pooling: it takes end tokens for padding if the two are one."""
        lengths = torch.tensor([len(sequence) for sequence in sequences], device=self._device)
        padded = nn.utils.rnn.pad_sequence([torch.tensor(s) for s in sequences], batch_first=True)
        padded = padded.to(self._device)
        mask = torch.arange(padded.shape[1], device=self._device) < lengths[:, None]
        hidden = self._model.base_model(padded, attention_mask=mask, use_cache=False).last_hidden_state
        last = hidden[torch.arange(len(sequences), device=self._device), lengths - 1]
        scores: Tensor = self._model.score(last).squeeze(-1).float()
        return scores
