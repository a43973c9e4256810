"""A checkpoint's weights as Hugging Face tensors, and what is refused."""

from __future__ import annotations

import json
import resource
import shutil
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import load_file
from torch import Tensor
from torch.distributed.checkpoint import FileSystemWriter
from typer.testing import CliRunner

from rlstack.checkpoint.store import CheckpointStore
from rlstack.cli import app
from rlstack.config.schema import Checkpoint
from rlstack.errors import CheckpointError, DiskError
from rlstack.model.architecture import Architecture
from rlstack.model.weight_names import wire_rules
from rlstack.policy.checkpoint_export import export_checkpoint
from rlstack.policy.checkpoint_header import Header
from rlstack.policy.checkpoint_weights import CheckpointWeights, key_of
from rlstack.policy.hf_map import fuse

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")  # saving in one process

SETTINGS = {
    "architectures": ["Qwen3ForCausalLM"],
    "num_hidden_layers": 3,
    "hidden_size": 8,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 6,
    "intermediate_size": 10,
    "vocab_size": 133,
    "max_position_embeddings": 64,
}
QWEN3 = Architecture.from_settings(SETTINGS, Path("config.json"))


class Writer(FileSystemWriter):
    """As the policy's, which does not note where the draft was."""

    def storage_meta(self) -> None:
        pass


def weights_of(architecture: Architecture) -> dict[str, Tensor]:
    """Random, by Hugging Face name."""
    rules = wire_rules(architecture).values()
    return {part.name: torch.randn(part.shape) for rule in rules for part in rule.parts}


def stacked(architecture: Architecture, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """As a checkpoint of one rank holds them, with the vocabulary padded as by several."""
    found: dict[str, list[Tensor]] = {}
    for name, rule in wire_rules(architecture).items():
        key, layer = key_of(name)
        tensor = fuse(rule, [weights[part.name] for part in rule.parts], architecture, tp_size=1)
        if rule.padded:
            tensor = torch.cat([tensor, tensor.new_ones(256, tensor.size(1))])
        found.setdefault(key, []).append(tensor if layer is None else tensor[None])
    return {key: torch.cat(tensors) for key, tensors in found.items()}


def save(state: dict[str, Any], checkpoint: Path, architecture: Architecture = QWEN3) -> Path:
    folder = checkpoint / "policy"
    dcp.save(state, storage_writer=Writer(folder), no_dist=True)
    Header(
        version=7,
        served_version=5,
        reference_version=None,
        architecture=asdict(architecture),
        precision="fp32",
        layout={},
        device="cpu",
        lr_schedule={},
    ).write(folder)
    return checkpoint


@pytest.fixture(params=[False, True], ids=["untied", "tied"])
def architecture(request: pytest.FixtureRequest) -> Architecture:
    return replace(QWEN3, tied=request.param)


@pytest.fixture
def model(tmp_path: Path, architecture: Architecture) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(SETTINGS | {"tie_word_embeddings": architecture.tied}))
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool.jinja").write_text("{{ tools }}")
    return folder


def test_every_tensor_comes_back_and_the_folder_is_whole(tmp_path, architecture, model) -> None:
    weights = weights_of(architecture)
    checkpoint = save(stacked(architecture, weights), tmp_path / "step", architecture)
    assert export_checkpoint(checkpoint, tmp_path / "out", source=model, max_file_bytes=3000) == 7
    found: dict[str, Tensor] = {}
    for path in (tmp_path / "out").glob("*.safetensors"):
        found |= load_file(path)
    torch.testing.assert_close(found, weights, atol=0, rtol=0)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "float32"
    for name in ("chat_template.jinja", "additional_chat_templates/tool.jinja"):
        assert (tmp_path / "out" / name).read_text() == (model / name).read_text()


def test_the_dtype_may_be_another(tmp_path, architecture, model) -> None:
    weights = weights_of(architecture)
    checkpoint = save(stacked(architecture, weights), tmp_path / "step", architecture)
    export_checkpoint(checkpoint, tmp_path / "out", source=model, dtype="bfloat16")
    found = load_file(tmp_path / "out" / "model.safetensors")
    rounded = {name: tensor.to(torch.bfloat16) for name, tensor in weights.items()}
    torch.testing.assert_close(found, rounded, atol=0, rtol=0)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "bfloat16"


KEY = "decoder.layers.mlp.linear_fc2.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop(KEY), f"lacks {KEY}"),
        (lambda state: state.update({KEY: state[KEY][:2].clone()}), f"holds {KEY} in part"),
    ],
)
def test_what_is_missing_is_named_and_nothing_is_left_behind(
    tmp_path, architecture, model, change, message
) -> None:
    state = stacked(architecture, weights_of(architecture))
    change(state)
    checkpoint = save(state, tmp_path / "step", architecture)
    with pytest.raises(CheckpointError, match=message):
        export_checkpoint(checkpoint, tmp_path / "out", source=model)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "step"]


def test_a_checkpoint_of_another_model_is_refused(tmp_path, architecture, model) -> None:
    other = replace(architecture, num_layers=2)
    checkpoint = save(stacked(other, weights_of(other)), tmp_path / "step", other)
    with pytest.raises(CheckpointError, match=r"num_layers = 2, but .* has 3"):
        export_checkpoint(checkpoint, tmp_path / "out", source=model)


def test_a_table_of_contents_that_points_elsewhere_is_refused(tmp_path) -> None:
    folder = save(stacked(QWEN3, weights_of(QWEN3)), tmp_path / "step") / "policy"
    contents = (folder / ".metadata").read_bytes()
    assert contents.count(b"__0_0.distcp") > 0
    (folder / ".metadata").write_bytes(contents.replace(b"__0_0.distcp", b"../../secret"))
    with pytest.raises(CheckpointError, match=r"names \.\./\.\./secret, no file beside it"):
        CheckpointWeights(folder)


def test_the_command_exports_a_run_and_says_which_version(tmp_path, architecture, model) -> None:
    run, weights = tmp_path / "run", weights_of(architecture)
    store = CheckpointStore(run / "checkpoints", Checkpoint())
    save(stacked(architecture, weights), store.draft(7), architecture)
    store.commit(7, None)
    (run / "config.yaml").write_text("policy: {model: ../model}\n")
    command = ["export", str(run), str(tmp_path / "out"), "--max-file-gb", "0.001"]
    done = CliRunner().invoke(app, command)
    assert (done.exit_code, done.output) == (0, f"{tmp_path / 'out'}: the policy after 7 steps\n")
    found = load_file(tmp_path / "out" / "model.safetensors")
    torch.testing.assert_close(found, weights, atol=0, rtol=0)
    again = CliRunner().invoke(app, command)
    assert again.exit_code == 2
    assert "is there already; remove it" in again.output


def test_an_export_that_finds_no_room_says_so_and_leaves_nothing(
    tmp_path, architecture, model, monkeypatch
) -> None:
    checkpoint = save(stacked(architecture, weights_of(architecture)), tmp_path / "step", architecture)
    out = tmp_path / "there" / "out"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        with pytest.raises(DiskError, match=r"OUT = .*out: cannot be written .*File too large.* are needed"):
            export_checkpoint(checkpoint, out, source=model)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(out.parent.iterdir()) == []
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(DiskError, match=r"GB are needed, and 1e-06 GB are free there"):
        export_checkpoint(checkpoint, out, source=model)
    assert list(out.parent.iterdir()) == []


@pytest.mark.parametrize("place", ["a-file/out", "a-file/below/out"])
def test_a_place_that_cannot_be_written_is_refused_before_anything_is_read(tmp_path, place) -> None:
    (tmp_path / "a-file").write_text("")
    done = CliRunner().invoke(app, ["export", str(tmp_path / "no-run"), str(tmp_path / place)])
    assert done.exit_code == 2
    assert "a-file is no folder to write to; give another folder" in done.output
