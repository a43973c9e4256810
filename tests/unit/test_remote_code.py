"""Models that bring code along are refused by name, before anything heavy starts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlstack.config.remote_code import remote_code
from rlstack.config.schema import RewardModel, RunConfig
from rlstack.config.validate import missing_inputs

ASKS = {"auto_map": {"AutoConfig": "configuration_evil.EvilConfig"}}


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_a_file_that_asks_for_code_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(json.dumps({"model_type": "llama"} | ASKS))
    (problem,) = remote_code("policy.model", tmp_path)
    assert problem.startswith(f"policy.model = {tmp_path}: {name} asks for Python code")
    assert "take auto_map out" in problem


@pytest.mark.parametrize("content", [None, "{}", '{"auto_map": {}}', "[]", "no JSON", "[" * 100_000])
def test_what_asks_for_none_is_for_others_to_judge(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    assert list(remote_code("policy.model", tmp_path)) == []


def test_a_run_s_models_are_all_looked_at(tmp_path: Path) -> None:
    for name in ("policy", "judge"):
        (tmp_path / name).mkdir()
        settings = {"max_position_embeddings": 64} | ASKS
        (tmp_path / name / "config.json").write_text(json.dumps(settings))
    config = RunConfig()
    config.policy.model = str(tmp_path / "policy")
    config.reward.models = [RewardModel(name="judge", path=str(tmp_path / "judge"))]
    found = [problem.partition(" = ")[0] for problem in missing_inputs(config)]
    assert found == ["policy.model", "reward.models[0].path"]
