"""Every family in every layout of up to four ranks: logprobs are those of transformers, and what is exported
is bit for bit what was loaded, of which each rank has read its slices only.
"""

from __future__ import annotations

import filecmp
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config

from rlstack.rendezvous import serve_store
from tests.distributed.policy_ranks import LLAMA3_ROPE, seed_model
from tests.distributed.test_policy import logprobs_of, micro_batch, sequences
from tests.ranks import run_ranks

__all__ = ["sequences"]

NUM_RANKS = 4
LAYOUTS = {f"tp{tp}_pp{pp}": (tp, pp) for tp, pp in ((1, 1), (2, 1), (1, 2), (4, 1), (2, 2), (1, 4))}
SHAPE: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "vocab_size": 133,
    "max_position_embeddings": 64,
}
LINEAR_ROPE = {"rope_type": "linear", "rope_theta": 1000.0, "factor": 4.0}
FAMILIES = {
    "llama2": LlamaConfig(**SHAPE | {"num_key_value_heads": 8}),
    "llama3.1": LlamaConfig(**SHAPE, rope_parameters=LLAMA3_ROPE),
    "llama3.2_tied": LlamaConfig(**SHAPE, rope_parameters=LLAMA3_ROPE, tie_word_embeddings=True),
    "llama_linear": LlamaConfig(**SHAPE, rope_parameters=LINEAR_ROPE),
    # A window that no sequence outgrows, and heads that are not the hidden size's.
    "mistral": MistralConfig(**SHAPE, head_dim=24, sliding_window=64, rms_norm_eps=1e-5),
    "qwen2": Qwen2Config(**SHAPE, rope_parameters={"rope_type": "default", "rope_theta": 1e6}),
    "qwen2_tied": Qwen2Config(**SHAPE, tie_word_embeddings=True),
    "qwen3": Qwen3Config(**SHAPE, head_dim=8),
    "qwen3_tied": Qwen3Config(**SHAPE, head_dim=32, tie_word_embeddings=True),
}
BF16 = {"llama3.1_bf16": FAMILIES["llama3.1"], "qwen3_tied_bf16": FAMILIES["qwen3_tied"]}
# Large enough for its memory to be told from what else a process does.
LARGE = LlamaConfig(**SHAPE | {"hidden_size": 256, "vocab_size": 30_000, "intermediate_size": 2048})


def save_as_bf16(folder: Path) -> None:
    """Its weights and settings from now on."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    model.save_pretrained(folder)


@pytest.fixture(scope="module")
def results(sequences, tmp_path_factory) -> Path:
    """A folder with models/<name>, and <name>/<layout> of what came of it."""
    folder = tmp_path_factory.mktemp("parity")
    for name, config in {**FAMILIES, **BF16, "large": LARGE}.items():
        seed_model(config, folder / "models" / name)
    for name in BF16:
        save_as_bf16(folder / "models" / name)
    precisions = dict.fromkeys(FAMILIES, "fp32") | dict.fromkeys(BF16, "bf16")
    stores = [serve_store("127.0.0.1", timeout_s=200.0) for _ in LAYOUTS]
    layouts = {
        name: [*sizes, store.port] for (name, sizes), store in zip(LAYOUTS.items(), stores, strict=True)
    }
    job = {"layouts": layouts, "models": precisions, "large": "large"}
    (folder / "job.json").write_text(json.dumps(job))
    np.savez(folder / "batches-0-0.npz", **asdict(micro_batch(sequences, pairs=True)))
    run_ranks(
        [["-m", "tests.distributed.parity_job", folder, rank] for rank in range(NUM_RANKS)], timeout_s=230
    )
    return folder


def tensors_in(folder: Path) -> dict[str, Tensor]:
    return {name: tensor for path in folder.glob("*.safetensors") for name, tensor in load_file(path).items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_logprobs_are_those_of_transformers(name, results, sequences) -> None:
    oracle = AutoModelForCausalLM.from_pretrained(results / "models" / name, dtype=torch.float32)
    expected = torch.cat([logprobs_of(oracle, item).detach() for item in sequences])
    for layout in LAYOUTS:
        found = load_file(results / name / layout / "logprobs.safetensors")["0"]
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*FAMILIES, *BF16])
def test_what_is_exported_is_what_was_loaded_whatever_the_layout(name, results) -> None:
    original = tensors_in(results / "models" / name)
    one, *others = (results / name / layout / "exported" for layout in LAYOUTS)
    torch.testing.assert_close(tensors_in(one), original, atol=0, rtol=0)
    files = sorted(path.name for path in one.iterdir())
    assert len([file for file in files if file.endswith(".safetensors")]) > 1
    for other in others:
        assert sorted(path.name for path in other.iterdir()) == files
        assert filecmp.cmpfiles(one, other, files, shallow=False)[0] == files
    loaded, notes = AutoModelForCausalLM.from_pretrained(one, dtype="auto", output_loading_info=True)
    assert not any(notes.values())
    assert loaded.dtype is next(iter(original.values())).dtype


def reads(results: Path, layout: str, name: str) -> list[dict[str, int]]:
    """Bytes by tensor, of each rank."""
    tp, pp = LAYOUTS[layout]
    ranks = [json.loads((results / f"read-{rank}.json").read_text()) for rank in range(tp * pp)]
    return [rank[layout][name] for rank in ranks]


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["llama3.1", "qwen3_tied"])
def test_a_rank_reads_its_slices_only(name, layout, results) -> None:
    """Together each byte once; norms on all tensor-parallel ranks, a tied embedding on two stages."""
    (tp, pp), of_ranks = LAYOUTS[layout], reads(results, layout, name)
    for tensor_name, tensor in tensors_in(results / "models" / name).items():
        found = [of_rank[tensor_name] for of_rank in of_ranks if tensor_name in of_rank]
        is_replicated = tensor.dim() == 1
        is_twice = name == "qwen3_tied" and tensor_name == "model.embed_tokens.weight" and pp > 1
        assert len(found) == tp * (2 if is_twice else 1)
        assert sum(found) == tensor.nbytes * (tp if is_replicated else 1) * (2 if is_twice else 1)


@pytest.mark.slow
def test_loading_takes_the_memory_of_one_parameter(results) -> None:
    (of_rank,) = reads(results, "tp1_pp1", "large")
    sizes = [tensor.nbytes for tensor in tensors_in(results / "models" / "large").values()]
    assert of_rank["more"] < 1.5 * max(sizes) < 0.75 * sum(sizes)
