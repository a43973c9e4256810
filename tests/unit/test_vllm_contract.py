"""What this project uses of vLLM beyond its documented API; what a version changes of it is named here."""

from __future__ import annotations

import ast
import importlib
import inspect
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import torch
from torch.nn.functional import linear

pytest.importorskip("vllm")

ROOT = Path(__file__).parents[2]

# module -> name -> its parameters in order; None where only the name matters.
CONTRACT: dict[str, dict[str, tuple[str, ...] | None]] = {
    "vllm": {
        "LLM": None,
        "LLM.enqueue": None,
        "LLM.get_tokenizer": ("self",),
        "LLM.sleep": ("self", "level", "mode"),
        "LLM.start_profile": None,
        "LLM.stop_profile": ("self",),
        "LLM.wake_up": ("self", "tags"),
        "PoolingParams": None,
        "SamplingParams": None,
    },
    "vllm.distributed.weight_transfer.base": {
        "WeightTransferEngine": ("config", "vllm_config", "device", "model"),
        "WeightTransferEngine.init_transfer_engine": ("self", "init_info"),
        "WeightTransferEngine.start_weight_update": ("self",),
        "WeightTransferEngine.update_weights": ("self", "update_info"),
        "WeightTransferEngine.receive_weights": ("self", "update_info"),
        "WeightTransferEngine.finish_weight_update": ("self",),
        "WeightTransferEngine.shutdown": ("self",),
        "WeightTransferEngine.parse_update_info": ("self", "update_dict"),
        "WeightTransferInitInfo": None,
        "WeightTransferUpdateInfo": None,
    },
    "vllm.distributed.weight_transfer.factory": {
        "WeightTransferEngineFactory": None,
        "WeightTransferEngineFactory.register_engine": ("name", "module_path_or_cls", "class_name"),
    },
    "vllm.model_executor.layers.utils": {"dispatch_cpu_unquantized_gemm": ("layer", "remove_weight")},
    "vllm.model_executor.layers": {"utils": None},  # an attribute once the line above has imported it
    "vllm.model_executor.layers.quantization": {"QUANTIZATION_METHODS": None},
    "vllm.model_executor.layers.quantization.online.fp8": {"OnlineLinearBase": None},
    "vllm.model_executor.layers.attention": {"is_deferred_attention_layer": ("layer",)},
    "vllm.model_executor.layers.linear": {
        "UnquantizedLinearMethod": None,
        "UnquantizedLinearMethod.process_weights_after_loading": ("self", "layer"),
    },
    "vllm.model_executor.layers.vocab_parallel_embedding": {
        "UnquantizedEmbeddingMethod": None,
        "UnquantizedEmbeddingMethod.process_weights_after_loading": ("self", "layer"),
    },
    "vllm.model_executor.model_loader.reload.layerwise": {
        "_get_original_loader": ("tensor",),
        "_layerwise_process": ("layer", "info"),
        "_place_kernel_tensors": ("layer", "info"),
        "finalize_layerwise_reload": None,
        "finalize_layerwise_processing": ("model", "model_config"),
        "get_layerwise_info": ("layer",),
        "initialize_layerwise_reload": ("model",),
        "record_metadata_for_reloading": ("model",),
    },
    "vllm.model_executor.model_loader.reload.meta": {"materialize_layer": ("layer", "info")},
    "vllm.model_executor.model_loader.reload.types": {
        "LayerReloadingInfo.can_load": ("self",),
        "LayerReloadingInfo.reset": ("self",),
    },
    "vllm.utils.nccl": {"unpinned_nccl_env": ()},
    "vllm.v1.worker.gpu_worker": {
        "Worker.init_weight_transfer_engine": ("self", "init_info"),
        "Worker.start_weight_update": ("self",),
        "Worker.update_weights": ("self", "update_info"),
        "Worker.finish_weight_update": ("self",),
        "Worker.reload_weights": None,
    },
    "vllm.v1.executor.abstract": {"Executor.sleep": ("self", "level"), "Executor.wake_up": ("self", "tags")},
    "vllm.v1.worker.gpu_model_runner": {"GPUModelRunner.get_model": ("self",)},
    "vllm.v1.engine.llm_engine": {
        "LLMEngine.get_num_unfinished_requests": ("self",),
        "LLMEngine.has_unfinished_requests": ("self",),
        "LLMEngine.step": ("self",),
    },
    "vllm.engine.arg_utils": {
        "EngineArgs.generation_config": None,
        "EngineArgs.kv_cache_memory_bytes": None,
        "EngineArgs.logprobs_mode": None,
        "EngineArgs.quantization": None,
        "EngineArgs.weight_transfer_config": None,
        "EngineArgs.worker_extension_cls": None,
    },
    "vllm.plugins": {"DEFAULT_PLUGINS_GROUP": None},
}


def broken(module: str, name: str, parameters: tuple[str, ...] | None) -> str | None:
    """What is wrong with the name, in words."""
    try:
        found = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        return f"{module}.{name} is gone: {error}"
    actual = None if parameters is None else tuple(inspect.signature(found).parameters)
    return None if actual == parameters else f"{module}.{name} takes {actual}, not {parameters}"


def test_vllm_has_every_name_that_is_used_of_it():
    import vllm

    checks = [broken(module, *item) for module, names in CONTRACT.items() for item in names.items()]
    problems = [problem for problem in checks if problem]
    assert not problems, f"vLLM {vllm.__version__} has changed:\n" + "\n".join(problems)


def test_the_contract_lists_every_import_from_vllm():
    imports = {
        (node.module, alias.name)
        for path in (ROOT / "rlstack").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "vllm"
        for alias in node.names
    }
    assert imports
    assert imports <= {(module, name) for module, names in CONTRACT.items() for name in names}


def test_vllm_takes_the_settings_of_a_profiled_run(tmp_path: Path) -> None:
    from vllm.config import ProfilerConfig

    from rlstack.config.schema import Policy, Run, RunConfig, Telemetry
    from rlstack.rollout.load import profiler_settings

    config = RunConfig(run=Run(dir=str(tmp_path), name="run"), policy=Policy(model="m"))
    assert profiler_settings(config, index=1) == {}
    config.telemetry = Telemetry(profile_steps=[2, 3])
    settings = profiler_settings(config, index=1)
    taken = ProfilerConfig(**settings["profiler_config"])
    assert taken.torch_profiler_dir == str(tmp_path / "run" / "profile" / "engine-1")


def test_the_linears_look_the_packing_up_when_they_pack():
    """plugin.keep_plain_weights replaces it in its own module only."""
    from vllm.model_executor.layers import linear, vocab_parallel_embedding

    assert not hasattr(linear, "dispatch_cpu_unquantized_gemm")
    assert not hasattr(vocab_parallel_embedding, "dispatch_cpu_unquantized_gemm")


def test_vllm_finds_the_transfer_engine_through_its_plugins():
    from importlib.metadata import entry_points

    from vllm.distributed.weight_transfer.base import WeightTransferEngine
    from vllm.plugins import DEFAULT_PLUGINS_GROUP

    from rlstack.transfer import vllm_engine
    from rlstack.transfer.plugin import register

    assert [e.load() for e in entry_points(group=DEFAULT_PLUGINS_GROUP, name="rlstack")] == [register]
    register()
    register()  # vLLM may load plugins more than once
    assert issubclass(vllm_engine.ReshardEngine, WeightTransferEngine)
    assert not inspect.isabstract(vllm_engine.ReshardEngine)


@pytest.mark.parametrize("of_a_run", [True, False])
def test_the_workers_of_a_runs_engine_unpickle_nothing_of_a_strangers(
    monkeypatch: pytest.MonkeyPatch, of_a_run: bool
) -> None:
    from torch.distributed import distributed_c10d
    from vllm.v1.worker.worker_base import WorkerWrapperBase

    from rlstack.collectives import SECRET
    from rlstack.transfer.plugin import register

    # A worker loads plug-ins here, before init_device, in which it joins the others.
    assert "load_general_plugins()" in inspect.getsource(WorkerWrapperBase.init_worker)
    for name in ("_pickler", "_unpickler"):
        monkeypatch.setattr(distributed_c10d, name, name)
    monkeypatch.delenv(SECRET, raising=False)
    if of_a_run:
        monkeypatch.setenv(SECRET, "secret")
    register()
    assert (distributed_c10d._pickler != "_pickler") == of_a_run
    assert (distributed_c10d._unpickler != "_unpickler") == of_a_run


@pytest.mark.parametrize("head_dtype", ["float32", "bfloat16"])
def test_a_bf16_models_head_is_computed_in_the_precision_that_is_set(head_dtype: str) -> None:
    from vllm.config import ModelConfig, VllmConfig, set_current_vllm_config
    from vllm.model_executor.layers.logits_processor import LogitsProcessor
    from vllm.model_executor.layers.vocab_parallel_embedding import UnquantizedEmbeddingMethod

    folder = str(ROOT / "configs" / "tiny" / "seed")
    model = ModelConfig(folder, dtype="bfloat16", hf_overrides={"head_dtype": head_dtype})
    with set_current_vllm_config(VllmConfig(model_config=model)):
        processor = LogitsProcessor(100)
    torch.manual_seed(0)
    hidden, weight = torch.randn(8, 64).bfloat16(), torch.randn(100, 64).bfloat16()
    head = SimpleNamespace(weight=weight, quant_method=UnquantizedEmbeddingMethod(), cpu_linear=linear)
    logits = processor._apply_head(head, hidden, None)
    exact = hidden.double() @ weight.double().t()
    error = float((logits.double() - exact).abs().max())
    assert logits.dtype == getattr(torch, head_dtype)
    assert error < 1e-4 if head_dtype == "float32" else error > 1e-2


@pytest.mark.parametrize(("fp32_head", "head_dtype"), [(True, "float32"), (False, "bfloat16")])
def test_engines_are_loaded_with_the_head_that_is_set(
    fp32_head: bool, head_dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import vllm

    from rlstack.config.load import load_config
    from rlstack.rollout.load import load_llm

    overrides = ["rollout.precision=bf16", f"rollout.fp32_head={str(fp32_head).lower()}"]
    config = load_config(ROOT / "configs" / "quickstart.yaml", overrides)
    loaded: list[dict[str, Any]] = []
    monkeypatch.setattr(vllm, "LLM", lambda folder, **options: loaded.append(options))
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)
    with mock.patch.dict(os.environ):
        load_llm(config, index=0, max_prompt_tokens=None)
    assert [options["hf_overrides"] for options in loaded] == [{"head_dtype": head_dtype}]
    assert [options["dtype"] for options in loaded] == ["bfloat16"]
