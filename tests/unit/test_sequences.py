"""How long an engine's sequences are, and whether a cache on the CPU holds one."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlstack.config.schema import Policy, Rollout, RunConfig
from rlstack.config.sequences import cache_problems, longest_sequence
from rlstack.model.architecture import Architecture
from tests.model_folders import seed_folder


def long_model(folder: Path, **rollout: object) -> RunConfig:
    seed_folder(folder, max_position_embeddings=131072)
    return RunConfig(policy=Policy(model=str(folder)), rollout=Rollout(max_new_tokens=1000, **rollout))


def test_engines_take_the_longest_prompt_and_answer_and_never_more_than_the_context(tmp_path: Path) -> None:
    config = long_model(tmp_path / "model")
    assert longest_sequence(config, max_prompt_tokens=None) == 131072
    assert longest_sequence(config, max_prompt_tokens=500) == 1500
    assert longest_sequence(config, max_prompt_tokens=131000) == 131072


@pytest.mark.parametrize(("kv_cache_gib", "is_enough"), [(0.24, False), (0.25, True)])
def test_a_cache_has_to_hold_one_sequence(kv_cache_gib: float, is_enough: bool, tmp_path: Path) -> None:
    config = long_model(tmp_path / "model", kv_cache_gib=kv_cache_gib)
    shape = Architecture.from_folder(tmp_path / "model")
    # 4 layers x 2 heads x 32 x keys and values x 4 bytes = 2048 bytes a token
    found = list(cache_problems(config, shape, max_prompt_tokens=131072 - 1000))
    assert not list(cache_problems(config, shape, max_prompt_tokens=500))
    if is_enough:
        assert found == []
    else:
        assert "rollout.kv_cache_gib = 0.24: at least 0.25 is accepted" in found[0]
        assert "131072 tokens" in found[0]
