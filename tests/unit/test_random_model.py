"""Random models in the shape of known ones, as transformers loads them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlstack.data.datasets import tokenise
from rlstack.errors import ConfigError
from rlstack.model.architecture import Architecture
from rlstack.model.known_models import KNOWN_MODELS

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))

from random_model import TOKENIZER, resized, write_model

SMALL = {"hidden_size": 64, "num_layers": 2, "head_dim": 16, "vocab_size": 400}


@pytest.mark.parametrize(
    "name", ["Llama-3.1-8B", "Llama-3.2-1B", "Qwen2.5-1.5B", "Qwen3-0.6B", "Mistral-7B-v0.3"]
)
def test_transformers_finds_every_weight_initialised_as_its_own(name: str, tmp_path: Path) -> None:
    architecture = resized(KNOWN_MODELS[name], **SMALL, num_heads=4, num_kv_heads=2)
    write_model(architecture, tmp_path / "model", dtype="float32", max_file_bytes=60_000)
    model, notes = AutoModelForCausalLM.from_pretrained(
        tmp_path / "model", dtype="auto", output_loading_info=True
    )
    assert not any(notes.values())
    assert len(list((tmp_path / "model").glob("*.safetensors"))) > 1
    torch.manual_seed(0)
    for key, expected in AutoModelForCausalLM.from_config(model.config).named_parameters():
        found = model.get_parameter(key)
        assert found.shape == expected.shape
        assert found.mean().item() == pytest.approx(expected.mean().item(), abs=2e-3)
        assert found.std().item() == pytest.approx(expected.std().item(), abs=2e-3)
    assert Architecture.from_folder(tmp_path / "model") == architecture
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert model.config.eos_token_id == tokenizer.eos_token_id
    text = "1/2 + 1/3 is\n  what?"
    file = Tokenizer.from_file(str(tmp_path / "model" / "tokenizer.json"))
    (ids,) = tokenise(tokenizer, [text])
    assert (
        tokenizer(text, add_special_tokens=False)["input_ids"]
        == file.encode(text, add_special_tokens=False).ids
    )
    assert text in tokenizer.decode(ids)


def test_heads_and_ffn_follow_the_hidden_size() -> None:
    llama = resized(KNOWN_MODELS["Llama-3.1-8B"], hidden_size=1024)
    assert (llama.num_heads, llama.num_kv_heads, llama.ffn_size, llama.head_dim) == (8, 2, 3584, 128)
    assert llama.num_layers == 32


def test_refuses_heads_that_do_not_divide_and_a_tokenizer_that_is_too_large(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="give --heads and --kv-heads"):
        resized(KNOWN_MODELS["Llama-3.1-8B"], hidden_size=None, num_kv_heads=5)
    small = resized(KNOWN_MODELS["Llama-3.1-8B"], **{**SMALL, "vocab_size": 100})
    with pytest.raises(ConfigError, match=f"{TOKENIZER}: has 3.. tokens"):
        write_model(small, tmp_path / "model")
    assert not (tmp_path / "model").exists()
