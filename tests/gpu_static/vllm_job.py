"""Print, as JSON, what rlstack takes of the installed vLLM and does not find there.

As on a GPU: the arguments of engines and reward models are those that they would get there.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import vllm
from omegaconf import OmegaConf
from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory
from vllm.engine.arg_utils import EngineArgs
from vllm.model_executor.layers.quantization import QUANTIZATION_METHODS

from rlstack.config.precision import quantization_of
from rlstack.config.schema import Fp8Scaling, Rollout, RunConfig
from rlstack.rewards.vllm_engine import VllmEngine
from rlstack.rollout import load
from rlstack.transfer import plugin

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "configs" / "tiny" / "seed"
ENGINES: dict[str, dict[str, dict[str, Any]]] = {
    "split": {"rollout": {"precision": "bf16", "tensor_parallel": 2}},
    "colocated": {"cluster": {"placement": "colocated"}, "rollout": {"precision": "bf16", "overlap": False}},
    "gathered": {"transfer": {"method": "gather"}},
    "fp8": {"rollout": {"precision": "fp8"}},
}


class Recorder:
    """vLLM's LLM, as far as its arguments."""

    def __init__(self, *folder: str, **arguments: Any) -> None:
        self.arguments = arguments
        given.append(arguments)


given: list[dict[str, Any]] = []


def missing_names() -> Iterator[str]:
    """Of the names that files of rlstack import of vLLM."""
    for path in sorted((ROOT / "rlstack").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "vllm":
                assert node.module is not None
                module = importlib.import_module(node.module)
                yield from (
                    f"{path.name}: {node.module}.{alias.name}"
                    for alias in node.names
                    if not hasattr(module, alias.name)
                )


def unknown_arguments() -> Iterator[str]:
    """Arguments of engines and reward models that neither LLM nor EngineArgs has."""
    known = {field.name for field in dataclasses.fields(EngineArgs)} | set(
        inspect.signature(vllm.LLM.__init__).parameters
    )
    with (
        mock.patch.object(vllm, "LLM", Recorder),
        mock.patch.object(torch.cuda, "is_available", lambda: True),
        mock.patch.object(load, "engine_machine_problems", lambda *_: ()),
    ):
        for settings in ENGINES.values():
            config: Any = OmegaConf.to_object(
                OmegaConf.merge(OmegaConf.structured(RunConfig), {"policy": {"model": str(MODEL)}}, settings)
            )
            load.load_llm(config, index=0, max_prompt_tokens=32)
        VllmEngine(MODEL, max_tokens=64, batch_tokens=128, tensor_parallel=1, gpu_memory_fraction=0.2)
    assert len(given) == len(ENGINES) + 1
    for arguments in given:
        yield from (name for name in arguments if name not in known)


def unknown_quantizations() -> list[str]:
    """Those of FP8 rollouts that this vLLM does not have."""
    wanted = (quantization_of(Rollout(fp8_scaling=scaling)) for scaling in Fp8Scaling)
    return [name for name in wanted if name not in QUANTIZATION_METHODS]


def transfer_engine() -> list[str]:
    """The methods that the transfer's engine leaves abstract, found as vLLM finds it."""
    plugin.register()
    made = WeightTransferEngineFactory._registry[plugin.BACKEND]()
    return sorted(made.__abstractmethods__)


if __name__ == "__main__":
    found = {
        "version": re.sub(r"\+.*", "", vllm.__version__),
        "missing_names": list(missing_names()),
        "unknown_arguments": sorted(set(unknown_arguments())),
        "num_arguments": len({name for arguments in given for name in arguments}),
        "unknown_quantizations": unknown_quantizations(),
        "abstract": transfer_engine(),
    }
    print(json.dumps(found))
