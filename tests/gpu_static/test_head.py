"""The head's matrix products and sums on CUDA tensors, as far as torch checks them without a GPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.gpu_static.environment import run

JOB = Path(__file__).with_name("head_job.py")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_products_of_each_dtype_are_summed_in_fp32(dtype: str) -> None:
    lines = run(JOB, dtype).splitlines()
    assert lines == ["cuda torch.float32, cuda torch.float32"] * 2
