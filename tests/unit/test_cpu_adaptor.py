"""The CPU adaptor rewrites megatron-core's code only, and is refused where it must be."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from rlstack.policy.cpu import adaptor
from rlstack.policy.cpu.fused_adam import FusedAdam


def run(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)


def test_rewrites_constants_and_names_at_any_depth() -> None:
    def example(torch, kind):
        def inner():
            return torch.cuda.current_device(), kind in ("torch.cuda.FloatTensor", "cuda")

        return inner

    code = adaptor.rewrite(example.__code__)
    (inner,) = (constant for constant in code.co_consts if hasattr(constant, "co_names"))
    assert inner.co_names == ("mcpu", "current_device")
    assert ("torch.FloatTensor", "cpu") in inner.co_consts


def test_megatron_runs_on_the_cpu_and_cuda_still_raises_for_others() -> None:
    done = run(
        "import torch\n"
        "from rlstack.policy.backend import device, parallel_state\n"
        "assert device().type == 'cpu'\n"
        "try: torch.zeros(1).cuda()\n"
        "except Exception: print('raised')\n"
    )
    assert done.stdout == "raised\n", done.stderr


def test_the_policy_loads_neither_a_compiler_nor_wandb() -> None:
    done = run(
        "import sys, rlstack.policy.worker\n"
        "print(sys.modules.keys() & {'torch._dynamo', 'torch._inductor.lowering', 'wandb'})\n"
    )
    assert done.stdout == "set()\n", done.stderr


def test_is_refused_after_megatron_was_imported() -> None:
    done = run(
        "import sys, types\n"
        "sys.modules['megatron.core'] = types.ModuleType('megatron.core')\n"
        "import rlstack.policy.backend\n"
    )
    assert "was imported before the CPU adaptor" in done.stderr


def test_is_refused_where_cuda_is_available(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(RuntimeError, match="CUDA is available"):
        adaptor.install()


@pytest.mark.parametrize(("adam_w_mode", "oracle"), [(True, torch.optim.AdamW), (False, torch.optim.Adam)])
def test_fused_adam_is_torchs(adam_w_mode, oracle) -> None:
    torch.manual_seed(0)
    start, gradients = torch.randn(5, 3), torch.randn(4, 5, 3)
    ours, theirs = start.clone(), start.clone()
    settings = {"lr": 0.01, "betas": (0.8, 0.9), "eps": 1e-6, "weight_decay": 0.1}
    pairs = [
        (ours, FusedAdam([ours], adam_w_mode=adam_w_mode, **settings)),
        (theirs, oracle([theirs], **settings)),
    ]
    for gradient in gradients:
        for parameter, optimizer in pairs:
            parameter.grad = gradient.clone()
            optimizer.step()
    torch.testing.assert_close(ours, theirs)
    assert pairs[0][1].param_groups[0]["step"] == len(gradients)
