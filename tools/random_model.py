"""Writes a model with random weights in the shape of a public one, or of a folder's, smaller where asked.

The weights are initialised as transformers does it, one tensor at a time: normal, norms 1, biases 0. What the
engine and the policy do with a real checkpoint they do with this one too; only its answers mean nothing.

    python tools/random_model.py Llama-3.1-8B --layers 4 --hidden 1024 --out /tmp/llama
    python tools/random_model.py Qwen3-0.6B --layers 4 --out /tmp/qwen3 --dtype float32
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import AutoTokenizer

from rlstack.data.tokenizer import SAMPLE
from rlstack.errors import ConfigError
from rlstack.model.architecture import Architecture
from rlstack.model.known_models import architecture_of
from rlstack.orchestration.predict import model_shapes
from rlstack.policy.hf_folder import copy_tokenizer, replaced_at_once
from rlstack.policy.weight_files import WeightFiles

TOKENIZER = Path(__file__).parents[1] / "configs" / "tiny" / "seed"
STD = 0.02  # initializer_range of all these families
FFN_MULTIPLE = 64  # columns
# Llama 3.1's; 3.2 divides by 32.
LLAMA3_ROPE = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


def resized(architecture: Architecture, *, hidden_size: int | None, **sizes: int | None) -> Architecture:
    """With another hidden size, to which heads and ffn follow in proportion, and other `sizes` as given.

    Raises ConfigError if the heads cannot follow, or do not fit each other.
    """
    changes: dict[str, Any] = {} if hidden_size is None else _in_proportion(architecture, hidden_size)
    changes |= {name: size for name, size in sizes.items() if size is not None}
    changed = replace(architecture, **changes)
    if changed.num_heads % changed.num_kv_heads:
        raise ConfigError(
            f"{changed.num_heads} heads share {changed.num_kv_heads} key-value heads: a divisor is accepted; "
            f"give --heads and --kv-heads"
        )
    return changed


def _in_proportion(architecture: Architecture, hidden_size: int) -> dict[str, int]:
    def scaled(size: int, multiple: int = 1) -> int:
        return max(1, size * hidden_size // (architecture.hidden_size * multiple)) * multiple

    return {
        "hidden_size": hidden_size,
        "num_heads": scaled(architecture.num_heads),
        "num_kv_heads": scaled(architecture.num_kv_heads),
        "ffn_size": scaled(architecture.ffn_size, FFN_MULTIPLE),
    }


def settings_of(architecture: Architecture, *, dtype: str) -> dict[str, Any]:
    """The config.json of a model of `architecture`."""
    rope = {"rope_type": architecture.rope_type, "rope_theta": architecture.rope_theta}
    if architecture.rope_type == "llama3":
        rope |= LLAMA3_ROPE
    elif architecture.rope_type != "default":
        raise ConfigError(
            f"MODEL has a rotary embedding of type {architecture.rope_type}: default | llama3 is accepted"
        )
    settings = {
        "architectures": [architecture.family],
        "model_type": architecture.family.removesuffix("ForCausalLM").lower(),
        "num_hidden_layers": architecture.num_layers,
        "hidden_size": architecture.hidden_size,
        "num_attention_heads": architecture.num_heads,
        "num_key_value_heads": architecture.num_kv_heads,
        "head_dim": architecture.head_dim,
        "intermediate_size": architecture.ffn_size,
        "vocab_size": architecture.vocab_size,
        "max_position_embeddings": architecture.context_length,
        "rms_norm_eps": architecture.norm_eps,
        "rope_parameters": rope,
        "tie_word_embeddings": architecture.tied,
        "hidden_act": "silu",
        "initializer_range": STD,
        "dtype": dtype,
    }
    if architecture.family == "MistralForCausalLM":
        settings["sliding_window"] = None
    return settings


def initial_tensor(name: str, shape: tuple[int, ...], random: torch.Generator) -> Tensor:
    """[*shape] fp32, as `_init_weights` of transformers/modeling_utils.py."""
    if name.endswith("norm.weight"):
        return torch.ones(shape)
    if name.endswith(".bias"):
        return torch.zeros(shape)
    return torch.empty(shape).normal_(0.0, STD, generator=random)


def write_model(
    architecture: Architecture,
    folder: Path,
    *,
    tokenizer: Path = TOKENIZER,
    dtype: str = "bfloat16",
    seed: int = 0,
    max_file_bytes: int = 25 * 10**7,
) -> None:
    """Write it to `folder`, which it replaces, with the tokenizer of the folder `tokenizer`.

    Raises ConfigError if the tokenizer has more tokens than the model.
    """
    shapes = model_shapes(architecture)
    special = _special_tokens(tokenizer, architecture.vocab_size)
    random = torch.Generator().manual_seed(seed)
    with replaced_at_once(folder) as draft:
        specs = [(name, shape, dtype) for name, shape in shapes.items()]
        files = WeightFiles(draft, specs, max_file_bytes=max_file_bytes)
        for name, shape in shapes.items():
            files.write(name, initial_tensor(name, shape, random))
        files.close()
        text = json.dumps(settings_of(architecture, dtype=dtype) | special, indent=2) + "\n"
        (draft / "config.json").write_text(text, encoding="utf-8")
        copy_tokenizer(tokenizer, draft)
        if tokenizer == TOKENIZER and architecture.family == "Qwen2ForCausalLM":
            write_byte_tokenizer(tokenizer, draft)
        _refuse_other_tokens(tokenizer, draft)


def write_byte_tokenizer(source: Path, folder: Path) -> None:
    """Give `folder` a tokenizer of bytes, with the special tokens and the chat template of `source`.

    For Qwen2, which transformers always reads as a byte-level one: of any other it would lose the spaces.
    """
    special = Tokenizer.from_file(str(source / "tokenizer.json")).get_added_tokens_decoder()
    names = [token.content for _, token in sorted(special.items())]
    vocabulary = [*names, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE(vocab={name: i for i, name in enumerate(vocabulary)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([token for _, token in sorted(special.items())])
    tokenizer.save(str(folder / "tokenizer.json"))
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8")) | {"tokenizer_class": "Qwen2Tokenizer"}
    path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def _refuse_other_tokens(tokenizer: Path, folder: Path) -> None:
    """Raise ConfigError if transformers makes other tokens of a text than the tokenizer.json in `folder`."""
    loaded = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    expected = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(SAMPLE, add_special_tokens=False)
    if loaded(SAMPLE, add_special_tokens=False)["input_ids"] != expected.ids:
        raise ConfigError(
            f"--tokenizer {tokenizer}: transformers reads it as {type(loaded).__name__} beside such a model, "
            "and makes other tokens than its tokenizer.json; give a tokenizer of the model's own family"
        )


def _special_tokens(tokenizer: Path, vocab_size: int) -> dict[str, Any]:
    loaded = AutoTokenizer.from_pretrained(tokenizer, trust_remote_code=False)
    if len(loaded) > vocab_size:
        raise ConfigError(
            f"--tokenizer {tokenizer}: has {len(loaded)} tokens, the model has {vocab_size}; raise --vocab"
        )
    return {f"{kind}_token_id": getattr(loaded, f"{kind}_token_id") for kind in ("bos", "eos", "pad")}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", metavar="MODEL", help="a name like Llama-3.1-8B, or a Hugging Face folder")
    parser.add_argument("--out", type=Path, required=True, help="the folder to write")
    parser.add_argument("--layers", type=int)
    parser.add_argument("--hidden", type=int, help="heads and ffn follow in proportion")
    parser.add_argument("--ffn", type=int)
    parser.add_argument("--heads", type=int)
    parser.add_argument("--kv-heads", type=int)
    parser.add_argument("--head-dim", type=int)
    parser.add_argument("--vocab", type=int)
    parser.add_argument("--context", type=int, help="tokens")
    parser.add_argument("--tokenizer", type=Path, default=TOKENIZER, help="folder; otherwise the tiny task's")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="bfloat16")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--max-file-gb", type=float, default=0.25)
    given = parser.parse_args()
    if given.out.exists():
        parser.error(f"--out {given.out}: is there already; remove it, or give another")
    try:
        architecture = resized(
            architecture_of(given.model),
            hidden_size=given.hidden,
            num_layers=given.layers,
            ffn_size=given.ffn,
            num_heads=given.heads,
            num_kv_heads=given.kv_heads,
            head_dim=given.head_dim,
            vocab_size=given.vocab,
            context_length=given.context,
        )
        write_model(
            architecture,
            given.out,
            tokenizer=given.tokenizer,
            dtype=given.dtype,
            seed=given.seed,
            max_file_bytes=int(given.max_file_gb * 10**9),
        )
    except ConfigError as error:
        sys.exit(f"error: {error}")
    print(f"{given.out}: {architecture}")


if __name__ == "__main__":
    main()
