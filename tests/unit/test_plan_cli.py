import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rlstack.cli import app
from rlstack.errors import ConfigError
from rlstack.model.known_models import KNOWN_MODELS
from rlstack.orchestration.layout_text import parse_engines, parse_trainer
from tests.heavy import HEAVY, run_without


def test_figures_of_a_resharding_are_exact(tmp_path: Path) -> None:
    """Of the 8B model every byte is sent once, spread evenly over the trainer's ranks."""
    path = tmp_path / "figures.json"
    arguments = ["plan-transfer", "Llama-3.1-8B", "--from", "TP2PP2", "--to", "TP4", "--infiniband", "25"]
    done = CliRunner().invoke(app, [*arguments, "--json", str(path)])
    assert done.exit_code == 0, done.output
    assert "16.061 GB" in done.output
    figures = json.loads(path.read_text())
    norms = 2 * (2 * 32 + 1) * 4096  # the one thing that every worker holds, in bytes
    share = (figures["model_bytes"] - norms) // 4 + norms
    assert figures["max_floor_bytes"] == figures["max_received_bytes"] == share
    assert figures["received_over_floor"] == 1.0
    assert (figures["num_moves"], figures["max_peers"], figures["num_relays"]) == (1548, 2, 0)
    assert figures["bounds"]["InfiniBand"]["broadcast_s"] == figures["model_bytes"] / 25e9
    assert figures["bounds"]["InfiniBand"]["transfer_s"] == figures["max_sent_bytes"] / 25e9


def test_fp32_is_twice_bf16(tmp_path: Path) -> None:
    sizes = []
    for dtype in ("bf16", "fp32"):
        path = tmp_path / dtype
        arguments = ["plan-transfer", "Qwen2.5-1.5B", "--from", "TP2", "--to", "2xTP1", "--dtype", dtype]
        assert CliRunner().invoke(app, [*arguments, "--json", str(path)]).exit_code == 0
        sizes.append(json.loads(path.read_text())["max_received_bytes"])
    assert sizes[1] == 2 * sizes[0]


def test_a_folder_will_do(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        '{"architectures": ["LlamaForCausalLM"], "num_hidden_layers": 4, "hidden_size": 128, '
        '"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32, "intermediate_size": 256, '
        '"vocab_size": 336, "max_position_embeddings": 192}'
    )
    done = CliRunner().invoke(app, ["plan-transfer", str(tmp_path), "--from", "PP2", "--to", "2xTP2"])
    assert done.exit_code == 0, done.output
    assert "1.0000" in done.output


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["Llama-9", "TP1", "TP1"], "error: MODEL = Llama-9: there is no such folder"),
        (["Qwen2.5-7B", "TP8", "TP4"], "--from = TP8: TP8 does not divide the model's 28 attention heads"),
        (["Llama-3.1-8B", "TP16", "TP4"], "--from = TP16: TP16 does not divide the model's 8 key-value"),
        (["Qwen2.5-7B", "PP3", "TP4"], "--from = PP3: PP3 does not divide the model's 28 layers"),
        (["Qwen2.5-7B", "PP4VP2", "TP4"], "PP x VP = 8 does not divide the model's 28 layers"),
        (["Qwen2.5-7B", "TP4VP2", "TP4"], "--from = TP4VP2: VP is accepted with PP2 or more"),
        (["Qwen2.5-7B", "TP4", "2xTP14"], "--to = 2xTP14: TP14 does not divide the model's 18944 feed"),
        (["Qwen2.5-7B", "4", "TP4"], "--from = '4': a layout like TP8PP4"),
        (["Qwen2.5-7B", "TP2TP2", "TP4"], "--from = 'TP2TP2': a layout like TP8PP4"),
        (["Qwen2.5-7B", "TP2,PP2", "TP4"], "--from = 'TP2,PP2': a layout like TP8PP4"),
        (["Qwen2.5-7B", "TP0", "TP4"], "--from = 'TP0': a layout like TP8PP4"),
        (["Qwen2.5-7B", "TP4", "4TP4"], "--to = '4TP4': engines like 4xTP8"),
        (["Qwen2.5-7B", "TP4", "0xTP4"], "--to = '0xTP4': engines like 4xTP8"),
    ],
)
def test_what_cannot_be_planned_is_refused_in_one_line(arguments: list[str], shown: str) -> None:
    model, trainer, engines = arguments
    done = CliRunner().invoke(app, ["plan-transfer", model, "--from", trainer, "--to", engines])
    assert done.exit_code == 2
    assert shown in done.output
    assert len(done.output.splitlines()) == 1


def test_axes_come_in_any_order_and_case() -> None:
    layout = parse_trainer("dp3pp4TP8", KNOWN_MODELS["Llama-3.1-70B"])
    assert (layout.tensor_parallel, layout.pipeline_parallel, layout.data_parallel) == (8, 4, 3)
    layout = parse_trainer("TP4PP4VP5CP2", KNOWN_MODELS["Llama-3.1-70B"])
    assert (layout.virtual_pipeline, layout.context_parallel, layout.data_parallel) == (5, 2, 1)
    assert parse_engines("tp8", KNOWN_MODELS["Llama-3.1-70B"]).num_engines == 1


def test_engines_repeat_key_value_heads_or_share_them_out() -> None:
    model = replace(KNOWN_MODELS["Llama-3.1-8B"], num_heads=12, num_kv_heads=4, ffn_size=96, vocab_size=192)
    assert parse_engines("TP12", model).tensor_parallel == 12
    with pytest.raises(ConfigError, match="TP6 neither divides the model's 4 key-value heads nor is"):
        parse_engines("TP6", model)
    with pytest.raises(ConfigError, match="TP3 does not divide the model's 64 padded rows of vocabulary"):
        parse_engines("TP3", replace(model, vocab_size=64))


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    path = tmp_path / "nowhere" / "figures.json"
    arguments = ["plan-transfer", "Qwen2.5-1.5B", "--from", "TP1", "--to", "TP1", "--json", str(path)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2
    assert f"error: --json = {path}: cannot be written" in done.output


def test_help_and_refusals_import_nothing_heavy() -> None:
    refused = ["plan-transfer", "Llama-3.1-8B", "--from", "TP3", "--to", "TP1"]
    run_without(HEAVY, (["plan-transfer", "--help"], 0), (refused, 2))
