"""vLLM's build for GPUs has what rlstack takes of it: private names, arguments of engines, kinds of FP8."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.gpu_static.environment import run

JOB = Path(__file__).with_name("vllm_job.py")


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    return json.loads(run(JOB, VLLM_LOGGING_LEVEL="ERROR").splitlines()[-1])


def test_every_name_that_is_imported_is_there(found) -> None:
    assert found["missing_names"] == []


def test_every_argument_of_engines_and_reward_models_is_known(found) -> None:
    assert found["unknown_arguments"] == []
    assert found["num_arguments"] > 15


def test_every_kind_of_fp8_is_known(found) -> None:
    assert found["unknown_quantizations"] == []


def test_the_engine_of_the_transfer_is_found_and_leaves_no_method_out(found) -> None:
    assert found["abstract"] == []
