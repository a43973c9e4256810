from __future__ import annotations

from typing import Any

import pytest

from rlstack.config.schema import Precision, RunConfig
from rlstack.telemetry import sampled
from rlstack.telemetry.metrics import check_declared, is_timing
from rlstack.telemetry.peaks import common_peak_tflops, peak_of
from rlstack.telemetry.recorder import Recorder
from rlstack.telemetry.throughput import Throughput

LAYOUT = Throughput(num_policy_ranks=4, num_engine_ranks=2, peak_tflops=10.0)


def step(**metrics: float) -> dict[str, Any]:
    """Training for 2 s of 5, sampling for 4."""
    names = {"trained": "tokens/trained", "padding": "tokens/padding", "sampled": "tokens/sampled"}
    row = {
        "tokens/trained": 800,
        "tokens/padding": 200,
        "tokens/sampled": 400,
        "flops/train": 64e12,
        "time/step_s": 5.0,
        "time/update_s": 2.0,
        "time/sampling_s": 4.0,
    }
    return row | {names.get(name, name): value for name, value in metrics.items()}


def test_speeds_are_those_at_work_of_each_rank() -> None:
    metrics = LAYOUT.of_step(step())
    assert metrics == {
        "throughput/train_tokens_per_s_per_rank": 100,
        "throughput/train_tflops_per_rank": 8,
        "throughput/mfu": 0.8,
        "throughput/generated_tokens_per_s_per_rank": 50,
        "packing/padding_share": 0.2,
    }
    check_declared(metrics)
    assert [name for name in metrics if not is_timing(name)] == ["packing/padding_share"]


def test_what_cannot_be_told_is_left_out() -> None:
    """A step without an example, of an unknown GPU, in which engines that are ahead hardly sample."""
    unknown = Throughput(num_policy_ranks=1, num_engine_ranks=1, peak_tflops=None)
    assert unknown.of_step({"time/step_s": 5.0, "tokens/sampled": 9, "time/sampling_s": 0.01}) == {}
    assert "throughput/mfu" not in unknown.of_step(step())
    assert unknown.of_run([])["mfu"] is None


def test_the_bubble_is_a_share_of_the_passes() -> None:
    row = step(**{"wait/pipeline_bubble": 0.1, "time/reference_s": 0.5})
    assert LAYOUT.of_step(row)["pipeline/bubble_share"] == pytest.approx(0.1 * 5 / 2.5)


def test_a_run_weighs_its_steps_by_their_time() -> None:
    slow = step(**{"time/update_s": 6.0, "time/sampling_s": 0.0}, padding=600, trained=0, sampled=0)
    of_run = LAYOUT.of_run([step(), slow, {"time/step_s": 1.0}])
    assert of_run == {
        "train_tokens_per_s_per_rank": 800 / 8 / 4,
        "train_tflops_per_rank": 4,
        "mfu": 0.4,
        "generated_tokens_per_s_per_rank": 50,
        "bubble_share": None,
        "padding_share": 0.5,
    }


@pytest.mark.parametrize(
    ("name", "bf16", "fp8"),
    [
        ("NVIDIA H200", 989, 1979),
        ("NVIDIA H100 80GB HBM3", 989, 1979),
        ("NVIDIA H100 PCIe", 756, 1513),
        ("NVIDIA A100-SXM4-80GB", 312, None),
        ("NVIDIA B200", 2250, 4500),
        ("Tesla T4", None, None),
    ],
)
def test_peaks_go_by_the_name_that_nvml_gives(name: str, bf16: float | None, fp8: float | None) -> None:
    peak = peak_of(name)
    assert (peak and peak.bf16, peak and peak.fp8) == (bf16, fp8)
    assert common_peak_tflops([name, name], Precision.bf16) == bf16
    assert common_peak_tflops([name, name], Precision.fp8) == fp8


def test_gpus_that_differ_have_no_common_peak() -> None:
    assert common_peak_tflops(["NVIDIA H200", "NVIDIA B200"], Precision.bf16) is None
    assert common_peak_tflops([], Precision.bf16) is None


def test_a_peak_that_is_set_goes_first_and_all_ranks_count() -> None:
    config = RunConfig()
    config.telemetry.peak_tflops = 0.25
    config.policy.tensor_parallel, config.policy.data_parallel = 2, 3
    config.rollout.engines, config.rollout.tensor_parallel = 3, 2
    assert Throughput.of(config) == Throughput(num_policy_ranks=6, num_engine_ranks=6, peak_tflops=0.25)


def test_a_step_counts_the_tokens_that_arrived_in_it(tmp_path) -> None:
    config = RunConfig()
    config.run.dir, config.policy.model = str(tmp_path), "/model"
    sampled.add(1)  # before the run
    with Recorder(config) as recorder:
        recorder.evaluated({})
        sampled.add(30)
        sampled.add(12)
        recorder.step(1, {"reward/mean": 0.0})
        recorder.step(2, {"reward/mean": 0.0})
        assert [row["tokens/sampled"] for row in recorder.history.steps] == [42, 0]
