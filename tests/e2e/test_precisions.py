"""Short runs in which the policy and its engines compute in different precisions."""

from __future__ import annotations

import pytest
from safetensors.torch import load_file
from torch import bfloat16

from tests.e2e.test_train import rows, run

pytestmark = [pytest.mark.slow, pytest.mark.thorough]


@pytest.mark.parametrize(
    ("rollout", "method", "mismatch"),
    [("fp32", "reshard", 0.05), ("bf16", "gather", 0.06), ("fp8", "reshard", 0.5), ("fp8", "gather", 0.5)],
)
def test_a_policy_in_bf16_trains_on_what_engines_in_any_precision_sample(
    tmp_path, rollout: str, method: str, mismatch: float
) -> None:
    folder = run(
        tmp_path,
        "policy.precision=bf16",
        f"rollout.precision={rollout}",
        f"transfer.method={method}",
        "schedule.sync_interval=2",
    )
    steps = rows(folder / "metrics.jsonl")
    synced = [row for row in steps if "sync/verified" in row]
    assert synced and all(row["sync/verified"] for row in synced)
    compared = [row["mismatch/logprob_abs_mean"] for row in steps if "mismatch/logprob_abs_mean" in row]
    assert 0 < max(compared) < mismatch  # of the steps after a sync too
    assert len(compared) > 1
    weights = load_file(folder / "model" / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {bfloat16}
