"""Whatever is in a settings file or on the command line: settings, or one error of ours."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rlstack.config.load import load_config
from rlstack.config.schema import RunConfig
from rlstack.evaluation.settings import parse_task
from rlstack.model.architecture import Architecture
from tests.fuzz.hostile import damaged, outcome, texts, values

FILE = b"""base: other.yaml
run: {name: fuzz, dir: runs}
policy: {model: seed, tensor_parallel: 2}
schedule: {sync_interval: auto, num_steps: 0x10}
data:
  tasks:
  - {name: sums, path: "sums.jsonl", weight: 1e3}
optimizer: &o {lr: 1e-4}
"""
ODD = [
    "2020-13-45",
    "0x_",
    "0b",
    "1:99:99",
    "!!python/object:os.system x",
    "${oc.env:HOME}",
    "${",
    "${run.name}",
    "${policy.model}/x",
    "${data.tasks}",
    "${..}",
    "\\${x}",
    "~nobody/x",
    "*o",
    "? [a]",
    "[" * 2000,
    "{" * 2000,
    "&a [*a]",
    "=",
    "!!binary x",
    "!!timestamp 1",
    "\ud800",
    "\0",
    "1e999",
    "0x" + "f" * 5000,
    "2001-01-01",
]
KEYS = [
    "run.name",
    "run.seed",
    "schedule.sync_interval",
    "data.tasks",
    "data.tasks[0].weight",
    "policy",
    "base",
    "optimizer.lr",
    "alarms.divergence.action",
    "cluster.env",
    "cluster.env.A",
    "policy.model",
    "policy.pipeline_layers",
    "policy.pipeline_layers[0].x",
    "reward.models",
    "data.tasks[9].path",
    "reward.models[0]",
    "run[0]",
    "run.name.x",
]
SETTINGS = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "intermediate_size": 96,
    "vocab_size": 100,
    "max_position_embeddings": 64,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("settings")
    (made / "other.yaml").write_text("run: {seed: 3}\n")
    return made


def loaded(path: Path | None, *overrides: str) -> None:
    config = outcome(lambda: load_config(path, overrides))
    assert config is None or isinstance(config, RunConfig)


@given(
    content=damaged(FILE)
    | st.binary(max_size=80)
    | st.sampled_from(ODD).map(lambda s: s.encode("utf-8", "replace"))
)
def test_a_file_is_settings_or_refused(folder: Path, content: bytes) -> None:
    (folder / "run.yaml").write_bytes(content)
    loaded(folder / "run.yaml")


@given(
    key=st.sampled_from(KEYS) | texts,
    text=st.sampled_from(ODD) | texts | values.map(repr) | st.text("[]{}:,&*!|>'\"%@`#- \n\t019.eExX_"),
)
@example(key="run.seed", text="2020-13-45")
def test_an_override_is_a_setting_or_refused(key: str, text: str) -> None:
    loaded(None, "policy.model=seed", f"{key}={text}")


@given(text=texts | st.from_regex(r"\w{0,3}=[\w,=./]{0,20}"))
def test_a_task_on_the_command_line_is_one_or_refused(text: str) -> None:
    outcome(lambda: parse_task(text))


@given(
    changes=st.dictionaries(
        st.sampled_from(
            [
                *SETTINGS,
                "head_dim",
                "num_key_value_heads",
                "rope_parameters",
                "rope_scaling",
                "rope_theta",
                "rms_norm_eps",
                "tie_word_embeddings",
                "hidden_act",
                "sliding_window",
                "use_sliding_window",
                "layer_types",
                "partial_rotary_factor",
                "num_experts",
                "quantization_config",
            ]
        ),
        values | st.dictionaries(st.sampled_from(["rope_type", "rope_theta", "type"]), values),
        max_size=3,
    )
)
def test_a_model_s_settings_are_an_architecture_or_refused(changes: dict[str, object]) -> None:
    found = outcome(lambda: Architecture.from_settings(SETTINGS | changes, Path("config.json")))
    assert found is None or isinstance(found, Architecture)
