"""One optimiser step, and the logprobs it needs, through megatron-core's pipeline schedules."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from rlstack_kernels import LogprobEntropy
from torch import Tensor

from rlstack.config.schema import Optimizer
from rlstack.data.records import MicroBatch
from rlstack.losses.build import Loss
from rlstack.policy.backend import get_forward_backward_func, parallel_state
from rlstack.policy.loss_terms import loss_terms
from rlstack.policy.model import PolicyModel
from rlstack.policy.offload import OffloadedState
from rlstack.policy.optimizer import build_optimizer, scale_lr, take_step, wrap_data_parallel
from rlstack.policy.overlap import gather_weights
from rlstack.policy.packed import PackedBatch
from rlstack.policy.parallel import context_rank, is_leader, num_stages
from rlstack.policy.reference import Reference
from rlstack.policy.step_metrics import MicroBatchMetrics, reduce_metrics
from rlstack.policy.timers import PIPELINE_BUBBLE, StepTimers, as_wait, settled_s
from rlstack.telemetry.timeline import span


class Trainer:
    """The policy on this rank; every method is collective over all ranks.

    `version` counts the optimiser steps taken, skipped ones included. `reference` is None where the loss
    needs none, or where it is the policy of every step itself.
    """

    def __init__(
        self, model: PolicyModel, *, loss: Loss, settings: Optimizer, reference_follows: bool = False
    ) -> None:
        """reference_follows: the reference takes over the policy after every step; no copy is kept."""
        self.model = model
        self.version = 0
        self._loss = loss
        self._timers = model.config.timers = StepTimers()
        self._data_parallel = wrap_data_parallel(model)
        self.optimizer, self.schedule = build_optimizer(self._data_parallel, settings)
        self.optimizer_state = OffloadedState(self.optimizer, is_on=model.offloads_optimizer)
        if num_stages() > 1:
            model.config.finalize_model_grads_func = as_wait(model.config.finalize_model_grads_func)
        # After the wrapping, which moves the weights into a buffer.
        keeps_reference = loss.needs_reference and not reference_follows
        self.reference = Reference(model, version=0) if keeps_reference else None

    def train_step(
        self, micro_batches: Sequence[MicroBatch], *, before_update: Callable[[], object] = lambda: None
    ) -> dict[str, float] | None:
        """Take one optimiser step on the micro-batches of this data-parallel rank, at least one of them.

        The gradient is that of the losses' sum over all ranks divided by their number of examples, of which
        there must be one. `before_update` is called when only the optimiser's own step is left to do, which
        is skipped where the loss or a gradient is not finite: then only the version advances.
        Returns the metrics on the leader of the last stage, None elsewhere.
        """
        started_s = settled_s()
        reference_logprobs = self._reference_logprobs(micro_batches)
        reference_end_s = settled_s()
        batches = self._pack(micro_batches)
        for chunk in self._data_parallel:
            chunk.zero_grad_buffer()
        self.optimizer.zero_grad()
        references = iter(reference_logprobs or [])
        reports = self._run(
            batches,
            lambda batch, output: loss_terms(
                self._loss,
                batch,
                output,
                next(references, None),
                policy_version=self.version,
                reference_version=self.reference.version if self.reference else None,
            ),
            forward_only=False,
        )
        self._wait_for_other_stages()
        before_update()
        with span("optimizer"), self.optimizer_state.at_hand():
            is_taken, grad_norm = take_step(
                self.optimizer,
                self.schedule,
                self._data_parallel,
                loss_is_finite=all(bool(report.loss.isfinite()) for report in reports),
            )
        metrics = self._metrics(reports, grad_norm=grad_norm, is_taken=is_taken)
        if metrics is not None:
            metrics["time/update_s"] = settled_s() - reference_end_s
            if reference_logprobs is not None:
                metrics["time/reference_s"] = reference_end_s - started_s
        self.version += 1
        return metrics

    def skip_step(self) -> None:
        """Count a step that had no example; weights and learning rate stay."""
        self.version += 1

    def scale_lr(self, factor: float) -> None:
        """Multiply the learning rate of all steps to come by `factor`."""
        scale_lr(self.schedule, factor)

    def gather_weights(self) -> None:
        """Make the weights of `version` whole on this rank; what reads them outside a pass comes after it."""
        gather_weights(self._data_parallel)

    def forward_logprobs(self, micro_batches: Sequence[MicroBatch]) -> list[Tensor]:
        """The labels' logprobs, [T] fp32 each, with the weights as they are; [] before the last stage."""
        batches = self._pack(micro_batches)

        def logprobs(batch: PackedBatch, output: LogprobEntropy, non_loss_data: bool) -> Tensor:
            assert non_loss_data
            return batch.whole(output).logprobs

        with torch.no_grad():
            return self._run(batches, logprobs, forward_only=True)

    def _reference_logprobs(self, micro_batches: Sequence[MicroBatch]) -> list[Tensor] | None:
        """As `forward_logprobs`, of the reference; None where they are the policy's own or not needed."""
        if self.reference is None or self.reference.version == self.version:
            return None
        with span("reference"), self.reference.in_place():
            return self.forward_logprobs(micro_batches)

    def _pack(self, micro_batches: Sequence[MicroBatch]) -> list[PackedBatch]:
        config = self.model.config
        num_slices = config.tensor_model_parallel_size if config.sequence_parallel else 1
        return [
            PackedBatch.from_micro_batch(
                batch,
                rank=context_rank(),
                num_ranks=config.context_parallel_size,
                num_slices=num_slices * self.model.token_multiple,
            )
            for batch in micro_batches
        ]

    def _run(
        self, batches: Sequence[PackedBatch], after: Callable[..., Any], *, forward_only: bool
    ) -> list[Any]:
        """What `after` (batch, output) returned for each batch, in order; [] before the last stage."""

        def forward(
            source: Iterator[PackedBatch], model: torch.nn.Module
        ) -> tuple[Tensor, Callable[..., Any]]:
            batch = next(source)
            output = model(
                batch.token_ids,
                None,  # positions: counted from each sequence's start
                None,  # mask: each sequence attends to itself
                labels=batch.labels,
                packed_seq_params=batch.sequences,
            )
            return output, partial(after, batch)

        self._timers.times_compute = not forward_only
        return get_forward_backward_func()(
            forward_step_func=forward,
            data_iterator=[iter(batches) for _ in self._data_parallel],
            model=self._data_parallel,
            num_microbatches=len(batches),
            seq_length=batches[0].token_ids.size(1),
            micro_batch_size=1,
            forward_only=forward_only,
            collect_non_loss_data=forward_only,
        )

    def _wait_for_other_stages(self) -> None:
        """Let the timeline tell this wait from the optimiser's step, which would begin with it."""
        if num_stages() > 1:
            with span("exchange", reason=PIPELINE_BUBBLE):
                dist.barrier(parallel_state.get_pipeline_model_parallel_group())

    def _metrics(
        self, reports: list[MicroBatchMetrics], *, grad_norm: float, is_taken: bool
    ) -> dict[str, float] | None:
        if not parallel_state.is_pipeline_last_stage():
            return None
        metrics = reduce_metrics(reports, parallel_state.get_data_parallel_group())
        metrics |= {
            "grad_norm": grad_norm,
            "lr": float(self.optimizer.param_groups[0]["lr"]),
            "guard/skipped": float(not is_taken),
        }
        return metrics if is_leader() else None
