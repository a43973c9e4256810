"""The process groups of the policy's ranks; megatron's order is tensor (fastest), context, data, pipeline."""

from __future__ import annotations

import datetime
import math
import os

import torch
import torch.distributed as dist

from rlstack.collectives import demand_proof
from rlstack.config.schema import Policy
from rlstack.policy.backend import model_parallel_cuda_manual_seed, on_gpu, parallel_state


def init_parallel(
    policy: Policy, store: dist.Store, *, host: str, rank: int, world_size: int, seed: int
) -> None:
    """Join the ranks that share `store`, on this machine if `host` is its loopback. Collective.

    Raises RuntimeError if the environment lacks the run's secret (rlstack.collectives).
    """
    if on_gpu():
        torch.cuda.set_device(rank % torch.cuda.device_count())
    else:
        torch.set_num_threads(1)
    if host in ("127.0.0.1", "::1", "localhost"):
        # gloo would listen on the address that the machine's name resolves to.
        os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    demand_proof()
    dist.init_process_group(
        "nccl" if on_gpu() else "gloo",
        store=store,
        rank=rank,
        world_size=world_size,
        timeout=datetime.timedelta(seconds=policy.step_timeout_s),
    )
    parallel_state.initialize_model_parallel(
        tensor_model_parallel_size=policy.tensor_parallel,
        pipeline_model_parallel_size=policy.pipeline_parallel,
        virtual_pipeline_model_parallel_size=policy.virtual_pipeline if policy.virtual_pipeline > 1 else None,
        context_parallel_size=policy.context_parallel,
        distributed_timeout_minutes=math.ceil(policy.step_timeout_s / 60),
        create_gloo_process_groups=False,
    )
    torch.manual_seed(seed)
    model_parallel_cuda_manual_seed(seed)


def close_parallel() -> None:
    """Leave the process groups."""
    parallel_state.destroy_model_parallel()
    dist.destroy_process_group()


def stage() -> int:
    """This rank's pipeline stage, from 0."""
    return parallel_state.get_pipeline_model_parallel_rank()


def num_stages() -> int:
    return parallel_state.get_pipeline_model_parallel_world_size()


def data_rank() -> int:
    return parallel_state.get_data_parallel_rank()


def context_rank() -> int:
    """Which part of each sequence this rank holds."""
    return parallel_state.get_context_parallel_rank()


def is_first_replica() -> bool:
    """Whether this rank is among those that hold the model once; context and data parallelism repeat it."""
    return bool(parallel_state.get_data_parallel_rank(with_context_parallel=True) == 0)


def is_leader() -> bool:
    """The first tensor-parallel rank of a stage, in the first replica, speaks for it."""
    return parallel_state.get_tensor_model_parallel_rank() == 0 and is_first_replica()
