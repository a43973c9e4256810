from __future__ import annotations

from rlstack.data.packing import pack
from rlstack.data.records import Prompt, Rollout, TrainingExample
from rlstack.model.flops import ModelFlops
from rlstack.orchestration.work import work_metrics

FLOPS = ModelFlops(matrices=50, attention_width=1)


def rollout_of(num_tokens: int) -> TrainingExample:
    """A sequence of `num_tokens`, of which the last token of the rollout is no part."""
    return TrainingExample.of_rollout(
        prompt=Prompt(task="a", row=0, problem="", token_ids=(1,)),
        rollout=Rollout(
            token_ids=(2,) * num_tokens,
            generator_logprobs=(0.0,) * num_tokens,
            text="",
            finished=True,
            version=0,
        ),
        advantage=0.0,
    )


def test_the_work_is_that_of_every_sequence_and_spread_over_the_ranks() -> None:
    lengths = [100, 30, 20, 10]
    examples = [rollout_of(length) for length in lengths]
    batches = pack(examples, data_parallel=2, micro_batch_tokens=100, version=0, cost=FLOPS.forward)
    forward = [100 * length + 2 * length**2 for length in lengths]
    assert work_metrics(batches, FLOPS, has_reference_pass=True) == {
        "flops/train": 3 * sum(forward),
        "flops/reference": sum(forward),
        "packing/micro_batches": 1,
        "packing/flops_imbalance": forward[0] / (sum(forward) / 2),
    }
    assert "flops/reference" not in work_metrics(batches, FLOPS, has_reference_pass=False)


def test_fillers_are_no_work() -> None:
    batches = pack([rollout_of(7)], data_parallel=4, micro_batch_tokens=100, version=0, multiple=2)
    metrics = work_metrics(batches, FLOPS, has_reference_pass=False)
    assert metrics["flops/train"] == 3 * FLOPS.forward(7)
    assert metrics["packing/flops_imbalance"] == 4
    assert metrics["packing/micro_batches"] == 2


def test_a_step_without_any_loss_is_no_work() -> None:
    batches = pack(
        [rollout_of(7)],
        data_parallel=2,
        micro_batch_tokens=100,
        version=0,
        has_zero_loss=lambda example: True,
    )
    metrics = work_metrics(batches, FLOPS, has_reference_pass=False)
    assert metrics == {"flops/train": 0, "packing/micro_batches": 1}
