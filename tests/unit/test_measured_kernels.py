"""The kernel that "auto" takes is the one that was measured as faster."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from rlstack_kernels.measured import Measured, liger_is_faster, measured

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))
import measured_kernels

HEAD = {"gpu": "NVIDIA H200", "dtype": "bfloat16", "hidden": 4096, "vocab": 128256}


def row(tokens: int = 4096, *, own_s: float = 2.0, liger_s: float = 1.0, **changes: Any) -> Measured:
    settings = HEAD | {"tokens": tokens, "own_s": own_s, "liger_s": liger_s, "liger_error": 2e-3} | changes
    return Measured(**settings)


def test_the_packaged_table_is_that_of_the_results() -> None:
    assert measured_kernels.TABLE.read_text(encoding="utf-8") == measured_kernels.table(), (
        "run python tools/measured_kernels.py"
    )
    assert all(isinstance(each, Measured) for each in measured())


def test_what_was_faster_with_every_number_of_tokens_is_taken() -> None:
    assert liger_is_faster([row(), row(8192)], **HEAD)


@pytest.mark.parametrize(
    "table",
    [
        [],
        [row(), row(8192, liger_s=2.1)],
        [row(liger_s=2.0)],
        [row(liger_error=0.02)],
        [row(gpu="NVIDIA H100 80GB HBM3")],
        [row(dtype="float32")],
        [row(hidden=8192)],
        [row(vocab=16032)],
    ],
    ids=[
        "nothing",
        "once slower",
        "equal",
        "inexact",
        "other GPU",
        "other dtype",
        "other width",
        "other head",
    ],
)
def test_what_was_not_measured_or_not_faster_is_not_taken(table: list[Measured]) -> None:
    assert not liger_is_faster(table, **HEAD)


def benchmark_row(implementation: str, time_s: float, **changes: Any) -> dict[str, Any]:
    whole = {
        "implementation": implementation,
        "entropy": "yes",
        "pass": "forward_backward",
        "max_error": 1e-3,
    }
    return whole | {"T": 4096, "H": 4096, "V": 128256, "dtype": "bfloat16", "time_s": time_s} | changes


def test_a_row_needs_both_of_one_shape() -> None:
    rows = [
        benchmark_row("rlstack", 2.0),
        benchmark_row("rlstack liger", 1.0, max_error=3e-3),
        benchmark_row("rlstack liger", 0.1, **{"pass": "forward"}),
        benchmark_row("rlstack", 3.0, T=8192),
        benchmark_row("liger", 0.5, T=8192, entropy="no"),
    ]
    result = {"machine": {"gpus": ["NVIDIA H200"]}, "rows": rows}
    assert measured_kernels.rows_of(result) == [row(liger_error=3e-3)._asdict()]
    assert measured_kernels.rows_of(result | {"machine": {"gpus": []}}) == []
