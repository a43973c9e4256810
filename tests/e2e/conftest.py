"""What the tests with real engines share: a random model small enough to load in no time."""

from __future__ import annotations

import json
import multiprocessing as mp
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
import torch

VOCAB_SIZE = 130  # not a multiple of the 64 to which vLLM pads


@pytest.fixture(scope="session")
def small_llama(tmp_path_factory):
    """Makes the folder of a random Llama: end tokens 1 and 2, every other token one letter."""
    # Here, so that tests which need an engine's processes alone do not need these packages.
    from tokenizers import Tokenizer, decoders, models
    from tokenizers.pre_tokenizers import Split
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    def make(seed: int, *, tied: bool) -> Path:
        folder = tmp_path_factory.mktemp("llama")
        torch.manual_seed(seed)
        config = LlamaConfig(
            vocab_size=VOCAB_SIZE,
            hidden_size=64,
            intermediate_size=96,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=32,  # vLLM's attention on CPU has no kernel for less
            max_position_embeddings=64,
            initializer_range=0.1,
            tie_word_embeddings=tied,
            bos_token_id=0,
            eos_token_id=1,
        )
        LlamaForCausalLM(config).save_pretrained(folder)
        generation_config = {"eos_token_id": [1, 2], "do_sample": True, "top_k": 1, "temperature": 0.01}
        (folder / "generation_config.json").write_text(json.dumps(generation_config))
        words = ["<bos>", "<end>", "<end2>", *(chr(0x4E00 + i) for i in range(VOCAB_SIZE - 3))]
        tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<bos>"))
        tokenizer.pre_tokenizer = Split("", "isolated")
        tokenizer.decoder = decoders.Fuse()
        wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<bos>", eos_token="<end>")
        wrapped.save_pretrained(folder)
        return folder

    return make


@pytest.fixture(scope="session")
def own_process(pytestconfig):
    """Submits a function of a test file to a process of its own: one engine per process, as in a run."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.syspath_prepend(str(pytestconfig.rootpath))  # the process imports the test file by name
        context = mp.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=context, max_tasks_per_child=1) as pool:
            yield pool


@pytest.fixture(scope="session")
def engine_pool(pytestconfig):
    """Processes for engines, one for each engine that is ever started."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.syspath_prepend(str(pytestconfig.rootpath))  # the process imports the test file by name
        context = mp.get_context("spawn")
        with ProcessPoolExecutor(2, mp_context=context, max_tasks_per_child=1) as pool:
            yield pool
