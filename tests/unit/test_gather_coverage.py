from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from rlstack.transfer.landing import expected_names


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
