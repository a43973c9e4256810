from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from rlstack.transfer.landing import expected_names, is_tied


@pytest.mark.parametrize(("tied", "head"), [(False, {"lm_head.weight"}), (True, set())])
def test_an_engine_expects_every_weight_of_its_checkpoint_but_a_tied_head(tmp_path, tied, head):
    save_file(
        {"model.embed_tokens.weight": torch.zeros(1), "lm_head.weight": torch.zeros(1)},
        tmp_path / "model-1.safetensors",
    )
    save_file(
        {"model.norm.weight": torch.zeros(1), "layers.0.rotary_emb.inv_freq": torch.zeros(1)},
        tmp_path / "model-2.safetensors",
    )
    assert expected_names(tmp_path, tied=tied) == {"model.embed_tokens.weight", "model.norm.weight"} | head


def test_files_that_the_index_does_not_name_are_not_expected(tmp_path):
    """As vLLM loads them: Mistral's folders have all weights once more under other names."""
    save_file({"model.norm.weight": torch.zeros(1)}, tmp_path / "model-00001-of-00001.safetensors")
    save_file({"layers.0.attention.wk.weight": torch.zeros(1)}, tmp_path / "consolidated.safetensors")
    index = {"weight_map": {"model.norm.weight": "model-00001-of-00001.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert expected_names(tmp_path, tied=False) == {"model.norm.weight"}


def test_a_head_is_tied_if_it_is_the_embedding_itself():
    model = torch.nn.Module()
    model.model = torch.nn.Module()
    model.model.embed_tokens = torch.nn.Embedding(4, 2)
    assert is_tied(model)
    model.lm_head = torch.nn.Linear(2, 4, bias=False)
    assert not is_tied(model)
    model.lm_head.weight = model.model.embed_tokens.weight
    assert is_tied(model)
