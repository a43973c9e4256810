"""The measured speed of implementations by GPU: the table that "auto" goes by. Pure.

measured.json is made from benchmarks/results/gpu_kernels.json by tools/measured_kernels.py.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

MAX_ERROR = 0.01  # nats: a third of what engine and policy may differ by in BF16


class Measured(NamedTuple):
    """Forward and backward of one shape: seconds, and Liger's largest error of a logprob or entropy."""

    gpu: str  # as torch names it
    dtype: str  # of hidden states and weight: bfloat16
    tokens: int
    hidden: int
    vocab: int  # rows of the weight
    own_s: float
    liger_s: float
    liger_error: float  # nats


@functools.cache
def measured() -> tuple[Measured, ...]:
    """The packaged table; empty while nothing has been measured on a GPU."""
    text = Path(__file__).with_name("measured.json").read_text(encoding="utf-8")
    return tuple(Measured(**row) for row in json.loads(text))


def liger_is_faster(table: Sequence[Measured], *, gpu: str, dtype: str, hidden: int, vocab: int) -> bool:
    """Return True if there are measurements of this head on this GPU, and all agree.

    A GPU, a precision or a head that was not measured is nothing to go by, nor are results further than
    MAX_ERROR from fp64.
    """
    rows = [
        row for row in table if (row.gpu, row.dtype, row.hidden, row.vocab) == (gpu, dtype, hidden, vocab)
    ]
    return bool(rows) and all(row.liger_s < row.own_s and row.liger_error <= MAX_ERROR for row in rows)
