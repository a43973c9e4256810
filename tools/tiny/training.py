"""What both tiny models share: their shape, a training loop and the way they are saved."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tiny_tokenizer import CONTEXT_TOKENS
from torch import Tensor
from transformers import (
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

INIT_STD = 0.08
IGNORED = -100  # transformers' label of a position without a loss

Example = tuple[list[int], list[int]]  # token ids of the prompt [P] and of the answer [T]


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Linear warm-up, then a cosine from `lr` to a tenth of it at `horizon_steps`; may stop before that."""

    lr: float
    num_steps: int
    horizon_steps: int
    warmup_steps: int = 50

    def lr_at(self, step: int) -> float:
        """Learning rate of a step, counted from 1."""
        cosine = 0.5 * (1 + math.cos(math.pi * step / self.horizon_steps))
        return self.lr * min(1.0, step / self.warmup_steps) * (0.1 + 0.9 * cosine)


def new_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A new Llama with 0.68 M parameters in fp32; residual projections start smaller, by depth."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=CONTEXT_TOKENS,
        initializer_range=INIT_STD,
        tie_word_embeddings=False,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    for name, parameter in model.named_parameters():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            torch.nn.init.normal_(parameter, 0.0, INIT_STD / math.sqrt(2 * config.num_hidden_layers))
    return model


def pad(sequences: Sequence[list[int]], *, value: int) -> Tensor:
    """Right-padded int64 [S, longest]. Causal attention keeps the padding out of what comes before it."""
    rows = [torch.tensor(sequence) for sequence in sequences]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=value)


def answer_loss(model: LlamaForCausalLM, examples: Sequence[Example]) -> Tensor:
    """Mean negative log-probability per answer token, scalar."""
    assert model.config.pad_token_id is not None
    token_ids = pad([prompt + answer for prompt, answer in examples], value=model.config.pad_token_id)
    labels = pad([[IGNORED] * len(prompt) + answer for prompt, answer in examples], value=IGNORED)
    return model(input_ids=token_ids, labels=labels).loss


def train(
    model: PreTrainedModel,
    step_loss: Callable[[], Tensor],
    schedule: Schedule,
    *,
    label: str,
    report_every: int = 100,
) -> list[float]:
    """Runs AdamW on the losses that `step_loss` draws; prints rate and time left; gives the loss per step."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=schedule.lr, betas=(0.9, 0.98), weight_decay=0.01)
    losses: list[float] = []
    start_s = time.perf_counter()
    for step in range(1, schedule.num_steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = schedule.lr_at(step)
        loss = step_loss()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
        if step % report_every == 0 or step == schedule.num_steps:
            recent = losses[-report_every:]
            rate = step / (time.perf_counter() - start_s)
            print(
                f"{label} {step}/{schedule.num_steps}  loss {sum(recent) / len(recent):.3f}"
                f"  {rate:.1f} steps/s  {(schedule.num_steps - step) / rate:.0f} s left",
                flush=True,
            )
    return losses


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Writes a Hugging Face folder in bf16; generation_config.json names token ids only, no sampling."""
    model.bfloat16()
    if model.can_generate():
        model.generation_config = GenerationConfig(
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder, save_jinja_files=False)
