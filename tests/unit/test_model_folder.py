"""Model folders as people have them: what the policy and vLLM would read differently is refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from rlstack.errors import ConfigError
from rlstack.model.files import end_token_ids
from rlstack.policy.model_folder import check_model_folder
from tests.model_folders import SEED, add_tensor, change_weights, edit, seed_folder, tied_folder


def without_prefix(tensors):
    return {name.removeprefix("model."): tensor for name, tensor in tensors.items()}


def with_prefix(tensors):
    return {f"base_model.{name}": tensor for name, tensor in tensors.items()}


def test_the_tiny_tasks_model_is_fine() -> None:
    assert check_model_folder(SEED).vocab_size == 336


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (add_tensor("v_head.weight", 1, 128), "model.safetensors holds v_head.weight that config.json"),
        (add_tensor("score.weight", 1, 128), "holds score.weight that"),
        (
            add_tensor("model.layers.4.mlp.up_proj.weight", 256, 128),
            "holds model.layers.4.mlp",
        ),
        (
            add_tensor("model.layers.0.self_attn.q_proj.bias", 128),
            "holds model.layers.0.self_attn.q",
        ),
        (
            without_prefix,
            "the weights have embed_tokens.weight where config.json asks for model.",
        ),
        (with_prefix, "where config.json asks for"),
        (lambda t: {n: x for n, x in t.items() if n != "lm_head.weight"}, "the weights lack lm_head.weight"),
        (lambda t: t | {"lm_head.weight": torch.zeros(340, 128)}, r"lm_head.weight is \(340, 128\), but"),
        (lambda t: t | {"lm_head.weight": torch.zeros(336, 128, dtype=torch.int8)}, "is of type I8"),
    ],
)
def test_weights_that_config_json_does_not_describe_are_refused(
    change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]], found: str, tmp_path: Path
) -> None:
    folder = seed_folder(tmp_path / "model")
    change_weights(folder, change)
    with pytest.raises(ConfigError, match=f"policy.model = .*{found}"):
        check_model_folder(folder)


def test_buffers_of_older_folders_are_left_alone(tmp_path: Path) -> None:
    folder = seed_folder(tmp_path / "model")
    change_weights(folder, add_tensor("model.layers.0.self_attn.rotary_emb.inv_freq", 16))
    check_model_folder(folder)


def test_an_adapter_beside_the_weights_is_named(tmp_path: Path) -> None:
    folder = seed_folder(tmp_path / "model")
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    save_file({name: torch.zeros(2, 128)}, folder / "adapter_model.safetensors")
    with pytest.raises(ConfigError, match=r"adapter_model.safetensors holds .*; merge the adapter"):
        check_model_folder(folder)


@pytest.mark.parametrize("head", ["none", "same", "other"])
def test_a_head_beside_the_embedding_that_it_is_tied_to_has_to_equal_it(head: str, tmp_path: Path) -> None:
    folder = tied_folder(tmp_path / "model", head=head)
    if head == "other":
        with pytest.raises(ConfigError, match=r"tie_word_embeddings = true, and lm_head.weight .* differs"):
            check_model_folder(folder)
    else:
        assert check_model_folder(folder).tied


def sharded(folder: Path) -> None:
    """The weights in two files, with an index; the single file stays."""
    tensors = load_file(folder / "model.safetensors")
    names = sorted(tensors)
    parts = {f"model-0000{i}-of-00002.safetensors": names[i - 1 :: 2] for i in (1, 2)}
    for file, part in parts.items():
        save_file({name: tensors[name] for name in part}, folder / file)
    index = {"weight_map": {name: file for file, part in parts.items() for name in part}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def test_two_sets_of_weights_are_refused(tmp_path: Path) -> None:
    folder = seed_folder(tmp_path / "model")
    sharded(folder)
    with pytest.raises(ConfigError, match="has two sets of weights, model"):
        check_model_folder(folder)
    (folder / "model.safetensors").unlink()
    check_model_folder(folder)
    (folder / "model.safetensors.index.json").unlink()
    (folder / "copy.safetensors").write_bytes((folder / "model-00001-of-00002.safetensors").read_bytes())
    with pytest.raises(ConfigError, match=r"is in copy.safetensors and in model-00001"):
        check_model_folder(folder)


def test_files_that_the_index_does_not_name_are_left_alone(tmp_path: Path) -> None:
    folder = seed_folder(tmp_path / "model")
    sharded(folder)
    (folder / "model.safetensors").unlink()
    save_file({"layers.0.attention.wk.weight": torch.zeros(2)}, folder / "consolidated.safetensors")
    check_model_folder(folder)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ('{"eos_token_id": "2"}', 'generation_config.json has eos_token_id = "2"; the number of a token'),
        ('{"eos_token_id": ["2", 3]}', "the number of a token is accepted"),
        ('{"eos_token_id": true}', "the number of a token is accepted"),
        ('{"eos_token_id": -1}', "the number of a token is accepted"),
        ('{"eos_token_id": 336}', "eos_token_id 336 .* is beyond the model's vocab_size of 336"),
        ('\ufeff{"eos_token_id": 2}', "generation_config.json begins with a byte order mark"),
        ('{"eos_token_id": ', "generation_config.json cannot be read as JSON"),
        ("[2]", "generation_config.json is not a JSON object"),
    ],
)
def test_end_tokens_that_are_no_tokens_are_refused(content: str, found: str, tmp_path: Path) -> None:
    folder = seed_folder(tmp_path / "model")
    (folder / "generation_config.json").write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=f"^policy.model = .*{found}"):
        check_model_folder(folder)


def test_end_tokens_come_from_both_files_of_the_folder(tmp_path: Path) -> None:
    folder = seed_folder(tmp_path / "model", eos_token_id=7)
    (folder / "generation_config.json").unlink()
    assert end_token_ids(folder) == [7]
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [9, 7]}))
    assert end_token_ids(folder) == [7, 9]
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": None}))
    edit(folder / "config.json", eos_token_id=None)
    assert end_token_ids(folder) == []


@pytest.mark.parametrize(
    ("content", "found"), [("\ufeff{}", "byte order mark"), ("{", "as JSON"), ("", "as JSON")]
)
def test_a_damaged_config_is_refused_by_name(content: str, found: str, tmp_path: Path) -> None:
    folder = seed_folder(tmp_path / "model")
    (folder / "config.json").write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=f"^policy.model = .*config.json .*{found}"):
        check_model_folder(folder)
