"""Tiny model folders, and what people's folders have instead."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor

SEED = Path(__file__).parents[1] / "configs" / "tiny" / "seed"
TEXTS = ["Given the following problem, reason.\nProblem: 7/2 - 2/5\n  Two spaces, and caf\u00e9."]
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def seed_folder(folder: Path, **settings: Any) -> Path:
    """A copy of the tiny task's model in `folder`, with `settings` in its config.json."""
    shutil.copytree(SEED, folder)
    edit(folder / "config.json", **settings)
    return folder


def edit(path: Path, **changes: Any) -> None:
    """Put `changes` into the JSON object in the file; None takes a key out."""
    content = json.loads(path.read_text(encoding="utf-8")) | changes
    content = {key: value for key, value in content.items() if value is not None}
    path.write_text(json.dumps(content), encoding="utf-8")


def change_weights(folder: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    """Have the folder's weights be what `change` makes of them."""
    path = folder / "model.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    save_file(
        {n: t.contiguous().clone() for n, t in change(tensors).items()}, path, metadata={"format": "pt"}
    )


def stale_folder(folder: Path) -> Path:
    """The tiny task's model from another training: files of the same names and sizes, other weights."""
    shutil.copytree(SEED, folder)
    drawn = torch.Generator().manual_seed(0)

    def train(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        noise = {name: torch.randn(tensor.shape, generator=drawn) for name, tensor in tensors.items()}
        return {
            name: (tensor * (1 + 0.05 * noise[name])).to(tensor.dtype) for name, tensor in tensors.items()
        }

    change_weights(folder, train)
    return folder


def tied_folder(folder: Path, *, head: str) -> Path:
    """A model whose head is its embedding; head: whether the file has it again: none | same | other."""
    seed_folder(folder, tie_word_embeddings=True)

    def tie(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        other = tensors.pop("lm_head.weight")
        if head != "none":
            tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"] if head == "same" else other
        return tensors

    change_weights(folder, tie)
    return folder


def byte_level_folder(folder: Path, tokenizer_class: str, **settings: Any) -> Tokenizer:
    """A model with a byte-level tokenizer.json under the name of `tokenizer_class`; the tokenizer in it."""
    seed_folder(folder, **settings)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<s>", "</s>", "<|user|>", "<|assistant|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(TEXTS * 20, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    content = {
        "tokenizer_class": tokenizer_class,
        "bos_token": "<s>",
        "eos_token": "</s>",
        "pad_token": "</s>",
        "chat_template": TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(content), encoding="utf-8")
    return tokenizer


def add_tensor(name: str, *shape: int) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda tensors: tensors | {name: torch.zeros(*shape)}
