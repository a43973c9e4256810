"""policy_job.py, with fused kernels in jobs whose name ends with "fused".

python -m tests.distributed.fusion_job FOLDER RANK. megatron-core's own code is that of a GPU; two kernels
that a CPU has not are replaced by what they are documented to compute.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import torch
from torch import Tensor

from rlstack.config.fusions import FusedKernels
from rlstack.policy import layers, model
from rlstack.policy.backend import ColumnParallelLinear, RowParallelLinear
from tests.distributed.policy_job import run

NONE, FUSED = FusedKernels(), FusedKernels(rope=True, swiglu=True, weight_gradients=True)


def rope_of_packed(
    tokens: Tensor, starts: Tensor, angles: Tensor, cp_size: int = 1, cp_rank: int = 0
) -> Tensor:
    """tokens [T / CP, heads, D]; starts [sequences + 1], of whole sequences; angles [longest, 1, 1, D]."""
    places = []
    for length in starts.diff().tolist():
        part = length // (2 * cp_size) if cp_size > 1 else length
        first, second = cp_rank * part, (2 * cp_size - 1 - cp_rank) * part
        places.append(torch.arange(first, first + part))
        places.append(torch.arange(second, second + part) if cp_size > 1 else torch.arange(0))
    turned = angles[torch.cat(places)].squeeze(1)
    left, right = tokens.chunk(2, dim=-1)
    return tokens * turned.cos() + torch.cat([-right, left], dim=-1) * turned.sin()


def add_product(inputs: Tensor, gradients: Tensor, main_grad: Tensor) -> None:
    main_grad.addmm_(gradients.t(), inputs)


def fuse(built: torch.nn.Module) -> int:
    """megatron-core's own layers for Transformer Engine's."""
    fusing = [m for m in built.modules() if isinstance(m, ColumnParallelLinear | RowParallelLinear)]
    for module in fusing:
        module.gradient_accumulation_fusion = True
    return len(fusing)


def main(folder: Path, rank: int) -> None:
    from megatron.core.models.common.embeddings import rope_utils
    from megatron.core.tensor_parallel import layers as linears

    kernel = mock.Mock(side_effect=rope_of_packed)
    product = mock.Mock(side_effect=add_product)
    rope_utils.fused_apply_rotary_pos_emb_thd = kernel
    linears.fused_weight_gradient_mlp_cuda = SimpleNamespace(wgrad_gemm_accum_fp32=product)
    for path in sorted(folder.glob("*/job.json")):
        fused = path.parent.name.endswith("fused")
        kernel.reset_mock()
        product.reset_mock()
        kernels = FUSED if fused else NONE
        with (
            mock.patch.object(layers, "policy_kernels", return_value=kernels),
            mock.patch.object(model, "policy_kernels", return_value=kernels),
            mock.patch.object(model, "fuse_weight_gradients", fuse),
        ):
            run(path.parent, json.loads(path.read_text()), rank)
        assert kernel.called == product.called == fused


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
