"""megatron-core's data parallelism, distributed optimiser and learning-rate schedule around the model.

The distributed optimiser is used without data parallelism too: its checkpoints differ from the plain one's.
"""

from __future__ import annotations

import math

import torch
import torch.distributed as dist

from rlstack.config.schema import Optimizer
from rlstack.policy.backend import (
    DistributedDataParallel,
    DistributedDataParallelConfig,
    MegatronOptimizer,
    OptimizerConfig,
    OptimizerParamScheduler,
    clip_grad_by_total_norm_fp32,
    device,
    finalize_model_grads,
    get_megatron_optimizer,
)
from rlstack.policy.model import PolicyModel
from rlstack.policy.overlap import prepare_overlap

_SCHEDULE_STATE = ("init_lr", "max_lr", "min_lr", "num_steps")


def wrap_data_parallel(model: PolicyModel) -> list[DistributedDataParallel]:
    """The chunks of `model`, with gradients gathered in fp32 buffers."""
    settings = DistributedDataParallelConfig(
        grad_reduce_in_fp32=True,
        use_distributed_optimizer=True,
        check_for_nan_in_grad=False,  # it would raise; take_step decides on all ranks alike
        average_in_collective=False,  # gloo has no average, and the divisor is the number of examples
        overlap_grad_reduce=model.overlap.grad_reduce,
        overlap_param_gather=model.overlap.param_gather,
        bucket_size=model.overlap.bucket_size,
    )
    chunks = [DistributedDataParallel(model.config, settings, chunk) for chunk in model.chunks]
    prepare_overlap(chunks)
    return chunks


def build_optimizer(
    chunks: list[DistributedDataParallel], settings: Optimizer
) -> tuple[MegatronOptimizer, OptimizerParamScheduler]:
    """AdamW and its schedule: linear from 0 over `warmup_steps`, then constant.

    The schedule is also what applies `wd_mult`, without which norms and biases would decay. It is to be
    advanced before each step, since the first step of a warm-up would otherwise have a learning rate of 0.
    """
    config = chunks[0].config  # all share it
    optimizer = get_megatron_optimizer(
        OptimizerConfig(
            optimizer="adam",
            lr=settings.lr,
            min_lr=settings.lr,
            weight_decay=settings.weight_decay,
            adam_beta1=settings.adam_beta1,
            adam_beta2=settings.adam_beta2,
            adam_eps=settings.adam_eps,
            # Upstream computes no norm when it is not to clip.
            clip_grad=settings.clip_grad or math.inf,
            bf16=config.bf16,
            params_dtype=config.params_dtype,
            use_distributed_optimizer=True,
            overlap_param_gather=chunks[0].ddp_config.overlap_param_gather,
        ),
        chunks,
        use_gloo_process_groups=False,
    )
    schedule = OptimizerParamScheduler(
        optimizer,
        init_lr=0.0 if settings.warmup_steps else settings.lr,
        max_lr=settings.lr,
        min_lr=settings.lr,
        lr_warmup_steps=settings.warmup_steps,
        lr_decay_steps=settings.warmup_steps + 1,
        lr_decay_style="constant",
        start_wd=settings.weight_decay,
        end_wd=settings.weight_decay,
        wd_incr_steps=0,
        wd_incr_style="constant",
    )
    config.finalize_model_grads_func = finalize_model_grads
    config.grad_scale_func = optimizer.scale_loss
    return optimizer, schedule


def take_step(
    optimizer: MegatronOptimizer,
    schedule: OptimizerParamScheduler,
    chunks: list[DistributedDataParallel],
    *,
    loss_is_finite: bool,
) -> tuple[bool, float]:
    """Take a step with the gradients of `chunks`, unless one of them or the loss is not finite on any rank.

    Collective over all ranks, which all decide alike. A step that is not taken leaves the weights, the
    optimiser's state and the schedule as they were. Otherwise as megatron-core's ChainedOptimizer.step, which
    has no place for a decision between the norm and the update.

    Returns whether the step was taken, and the global norm of the gradient before clipping.
    """
    is_finite = _everywhere(loss_is_finite and _has_finite_gradients(chunks))
    optimizer.prepare_grads()
    norm = float(optimizer.get_grad_norm())
    # Squares of finite gradients may overflow, and clipping by infinity would leave a step of zeros.
    if not is_finite or not math.isfinite(norm):
        return False, norm
    schedule.step(1)
    clip_grad_by_total_norm_fp32(
        optimizer.get_parameters(), max_norm=optimizer.config.clip_grad, total_norm=norm
    )
    optimizer.step_with_ready_grads()
    return True, norm


def _has_finite_gradients(chunks: list[DistributedDataParallel]) -> bool:
    """On this rank. The global norm counts only once what tensor-parallel ranks hold in common."""
    buffers = [buffer for chunk in chunks for buffer in chunk.buffers]
    extremes = [torch.stack(torch.aminmax(buffer.grad_data)) for buffer in buffers]  # NaN shows in both
    return bool(torch.cat(extremes).isfinite().all())


def _everywhere(holds: bool) -> bool:
    """Whether it holds on all ranks."""
    flag = torch.tensor(int(holds), dtype=torch.int32, device=device())
    dist.all_reduce(flag, op=dist.ReduceOp.MIN)
    return bool(flag)


def scale_lr(schedule: OptimizerParamScheduler, factor: float) -> None:
    """Multiply the learning rate of all steps to come by `factor`, those of a warm-up included.

    A parameter group's own rates count before the schedule's; checkpoints hold both.
    """
    schedule.init_lr *= factor
    schedule.max_lr *= factor
    schedule.min_lr *= factor
    for group in schedule.optimizer.param_groups:
        group.update({name: group[name] * factor for name in ("max_lr", "min_lr") if name in group})


def schedule_state(schedule: OptimizerParamScheduler) -> dict[str, float]:
    """Where the schedule stands, with every factor of `scale_lr`."""
    return {name: getattr(schedule, name) for name in _SCHEDULE_STATE}


def restore_schedule(schedule: OptimizerParamScheduler, state: dict[str, float]) -> None:
    """Go on from what `schedule_state` gave; the optimiser's parameter groups have been restored before."""
    for name in _SCHEDULE_STATE:
        setattr(schedule, name, state[name])
    schedule.step(0)
