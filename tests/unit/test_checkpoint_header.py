"""A checkpoint of another model or precision is refused by name."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from rlstack.config.schema import Policy, Precision
from rlstack.errors import CheckpointError
from rlstack.model.architecture import Architecture
from rlstack.policy.checkpoint_header import HEADER, Header, layout_of

ARCHITECTURE = Architecture(
    family="LlamaForCausalLM",
    num_layers=2,
    hidden_size=64,
    num_heads=4,
    num_kv_heads=2,
    head_dim=16,
    ffn_size=96,
    vocab_size=133,
    context_length=64,
    norm_eps=1e-6,
    rope_type="default",
    rope_theta=10000.0,
    tied=False,
    qkv_bias=False,
    qk_norm=False,
)
POLICY = Policy(model="models/tiny", tensor_parallel=2)
HEADER_OF_IT = Header(
    version=40,
    served_version=39,
    reference_version=None,
    architecture=asdict(ARCHITECTURE),
    precision="fp32",
    layout=layout_of(POLICY),
    device="cpu",
    lr_schedule={"max_lr": 0.1 * 0.3},
)


def test_it_comes_back_and_fits_its_own_model_in_any_layout(tmp_path) -> None:
    HEADER_OF_IT.write(tmp_path)
    found = Header.read(tmp_path)
    assert found == HEADER_OF_IT
    found.check(ARCHITECTURE, replace(POLICY, tensor_parallel=1), path=tmp_path)


@pytest.mark.parametrize(
    "change", [{"num_layers": 3}, {"tied": True}, {"norm_eps": 1e-5}, {"family": "Qwen3ForCausalLM"}]
)
def test_another_model_is_refused(change) -> None:
    ((name, value),) = change.items()
    with pytest.raises(CheckpointError, match=rf"there: is of a model with {name} = .*has {value!r}"):
        HEADER_OF_IT.check(replace(ARCHITECTURE, **change), POLICY, path=Path("there"))


def test_another_precision_is_refused() -> None:
    with pytest.raises(CheckpointError, match=r"policy\.precision = fp32, but it is bf16 now"):
        HEADER_OF_IT.check(ARCHITECTURE, replace(POLICY, precision=Precision.bf16), path=Path("there"))


@pytest.mark.parametrize("content", ["", "[]", "{}", "null", '{"version": 1}'])
def test_a_header_of_another_form_is_refused(tmp_path, content) -> None:
    (tmp_path / HEADER).write_text(content)
    with pytest.raises(CheckpointError, match=r"header\.json: cannot be read"):
        Header.read(tmp_path)


def test_a_field_that_it_does_not_know_is_refused(tmp_path) -> None:
    (tmp_path / HEADER).write_text(json.dumps(asdict(HEADER_OF_IT) | {"stranger": 1}))
    with pytest.raises(CheckpointError, match="stranger"):
        Header.read(tmp_path)
