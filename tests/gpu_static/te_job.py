"""One rank's policy of Transformer Engine's modules, built as on a GPU, with its weights in host memory.

python te_job.py JOB: JOB has the architecture and the policy's settings as JSON; what is found out about the
model goes to standard output as JSON. Other ranks are played: torch's fake process group.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import te_stand_in  # noqa: F401  # first: what follows imports megatron-core
import torch
import torch.distributed as dist
from omegaconf import OmegaConf
from torch.testing._internal.distributed.fake_pg import FakeStore
from transformer_engine.pytorch.optimizers import FusedAdam

from rlstack.collectives import SECRET
from rlstack.config.fusions import FusedKernels
from rlstack.config.schema import RunConfig
from rlstack.model import weight_names
from rlstack.model.architecture import Architecture
from rlstack.policy import checkpoint_state, hf_io, layers, model, parallel, quantised, weight_source
from rlstack.policy.model import PolicyModel
from rlstack.policy.optimizer import build_optimizer, wrap_data_parallel


def main(job: dict[str, Any]) -> dict[str, Any]:
    """Build the policy of `job`; return all that is found out about it."""
    config: Any = OmegaConf.to_object(
        OmegaConf.merge(OmegaConf.structured(RunConfig), {"policy": {"model": "none"} | job["policy"]})
    )
    architecture = Architecture(**job["architecture"])
    join(config)
    with on_gpu():
        policy = model.build_model(architecture, config.policy, Path("none"), entropy_gradient=False)
    return described(policy, config) | optimized(policy, config)


def join(config: RunConfig) -> None:
    """Be rank 0 of the policy's ranks, of which the others are not there."""
    os.environ[SECRET] = "of the test"
    world_size = config.policy.tensor_parallel
    made = dist.init_process_group
    with mock.patch.object(dist, "init_process_group", lambda _, **options: made("fake", **options)):
        parallel.init_parallel(
            config.policy, FakeStore(), host="127.0.0.1", rank=0, world_size=world_size, seed=0
        )


@contextmanager
def on_gpu() -> Iterator[None]:
    """Have torch answer as on a GPU, and megatron-core make its weights in host memory all the same."""
    settings: Callable[..., Any] = layers.TransformerConfig
    kernels = FusedKernels(rope=True, swiglu=True, weight_gradients=True)
    with (
        mock.patch.object(layers, "policy_kernels", return_value=kernels),
        mock.patch.object(model, "policy_kernels", return_value=kernels),
        mock.patch.multiple(torch.cuda, is_available=lambda: True, current_device=lambda: 0),
        mock.patch.object(model, "device", lambda: torch.device("cpu")),
        mock.patch.object(
            layers, "TransformerConfig", lambda **given: settings(**given | {"use_cpu_initialization": True})
        ),
    ):
        yield


def described(policy: PolicyModel, config: RunConfig) -> dict[str, Any]:
    """Of the modules, the parameters and what of them goes to engines and checkpoints."""
    rules = weight_names.stage_rules(policy.architecture)
    parameters = hf_io._parameters(policy)
    tensor_parallel = config.policy.tensor_parallel
    shapes = {
        name: weight_names.shard_shape(rule, policy.architecture, tp_size=tensor_parallel)
        for name, rule in rules.items()
    }
    pieces = weight_source.source_pieces(policy.chunks, policy.architecture)
    weights = checkpoint_state.sharded_weights(policy, {"": list(policy.parameters())})[""]
    return {
        "modules": sorted({type(module).__name__ for module in policy.modules()}),
        "shapes": {name: list(parameter.shape) for name, parameter in parameters.items()},
        "expected_shapes": {name: list(shape) for name, shape in shapes.items()},
        "quantised": sorted(quantised.quantised_weights(policy)),
        "dtypes": sorted({str(parameter.dtype) for parameter in policy.parameters()}),
        "cut": sorted(marked(parameters, "tensor_model_parallel")),
        "of_sequence_parallel": sorted(marked(parameters, "sequence_parallel")),
        "num_sent": sum(math.prod(high - low for low, high in piece.box) for piece in pieces),
        "num_saved": len(weights),
        "fused": [policy.config.apply_rope_fusion, policy.config.bias_activation_fusion],
        "adding_to_main_grad": sorted(
            {type(m).__name__ for m in policy.modules() if getattr(m, "fuse_wgrad_accumulation", False)}
        ),
        "fp8": [policy.config.fp8, policy.config.fp8_recipe],
    }


def marked(parameters: dict[str, torch.nn.Parameter], mark: str) -> set[str]:
    """Names of the parameters on which megatron-core has set `mark`."""
    return {name for name, parameter in parameters.items() if getattr(parameter, mark, False)}


def optimized(policy: PolicyModel, config: RunConfig) -> dict[str, Any]:
    """Of megatron-core's distributed optimiser around Transformer Engine's Adam."""
    import megatron.core.optimizer as of_megatron
    from megatron.core.optimizer import distrib_optimizer

    of_megatron.USING_PYTORCH_OPTIMIZER = False
    for module in (of_megatron, distrib_optimizer):
        module.Adam = FusedAdam
    with mock.patch.object(torch, "tensor", on_cpu(torch.tensor)):
        optimizer, _ = build_optimizer(wrap_data_parallel(policy), config.optimizer)
        saved = checkpoint_state.sharded_optimizer(optimizer, policy)
    (adam,) = {type(each.optimizer) for each in optimizer.chained_optimizers}
    state = [
        moments
        for each in optimizer.chained_optimizers
        for moments in each.optimizer.state.values()
        if moments
    ]
    return {
        "adam": f"{adam.__module__}.{adam.__qualname__}",
        "moments": sorted({name for moments in state for name in moments}),
        "moments_dtypes": sorted({str(tensor.dtype) for moments in state for tensor in moments.values()}),
        "saved": sorted(map(str, saved)),
    }


def on_cpu(tensor: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """`tensor`, whose results on CUDA are on the CPU instead."""

    def made(*values: Any, **options: Any) -> torch.Tensor:
        if str(options.get("device")).startswith("cuda"):
            options["device"] = "cpu"
        return tensor(*values, **options)

    return made


if __name__ == "__main__":
    found = main(json.loads(Path(sys.argv[1]).read_text()))
    print(json.dumps(found))
