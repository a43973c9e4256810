"""Which layouts of the policy are refused. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from rlstack.config.divisors import indivisible
from rlstack.config.machine import Machine
from rlstack.config.overlap import overlap_problems
from rlstack.config.schema import Policy, Precision, Recompute


class PolicyShape(Protocol):
    """What the policy's layout depends on."""

    @property
    def num_layers(self) -> int: ...
    @property
    def num_heads(self) -> int: ...
    @property
    def num_kv_heads(self) -> int: ...
    @property
    def ffn_size(self) -> int: ...


def parallel_problems(policy: Policy, architecture: PolicyShape, machine: Machine | None) -> Iterator[str]:
    """Problems of the policy's layout, one line each; machine: None where it does not count."""
    counts = {
        "attention heads": architecture.num_heads,
        "key-value heads": architecture.num_kv_heads,
        "feed-forward columns": architecture.ffn_size,
    }
    yield from indivisible("policy.tensor_parallel", policy.tensor_parallel, counts)
    yield from _pipeline(policy, architecture.num_layers)
    if policy.sequence_parallel and policy.tensor_parallel == 1:
        yield (
            "policy.sequence_parallel = true: it splits sequences over tensor-parallel ranks, of which there "
            "is one; set it to false or policy.tensor_parallel to 2 or more"
        )
    yield from _recomputed(policy, architecture.num_layers)
    yield from overlap_problems(policy)
    if machine is not None and machine.num_gpus > 0:
        yield from _context_on_gpus(policy)


def _pipeline(policy: Policy, num_layers: int) -> Iterator[str]:
    if policy.virtual_pipeline > 1 and policy.pipeline_parallel == 1:
        yield (
            f"policy.virtual_pipeline = {policy.virtual_pipeline}: 1 is accepted with "
            "policy.pipeline_parallel = 1, for there is no bubble to make smaller; set one or the other"
        )
    if policy.pipeline_layers is not None:
        yield from _uneven(policy, policy.pipeline_layers, num_layers)
    elif policy.virtual_pipeline > 1:
        num_chunks = policy.pipeline_parallel * policy.virtual_pipeline
        key = "policy.pipeline_parallel x virtual_pipeline"
        yield from indivisible(key, num_chunks, {"layers": num_layers})
    else:
        yield from indivisible("policy.pipeline_parallel", policy.pipeline_parallel, {"layers": num_layers})


def _uneven(policy: Policy, sizes: list[int], num_layers: int) -> Iterator[str]:
    num_chunks = policy.pipeline_parallel * policy.virtual_pipeline
    given = f"policy.pipeline_layers = {sizes}"
    if len(sizes) != num_chunks:
        yield (
            f"{given}: {num_chunks} numbers are accepted, one for each of policy.pipeline_parallel x "
            "virtual_pipeline chunks; change the list or one of them"
        )
    elif min(sizes) < 1:
        yield f"{given}: numbers of at least 1 are accepted, for every chunk has layers; change the list"
    elif sum(sizes) != num_layers:
        yield (
            f"{given}: numbers that sum to the model's {num_layers} layers are accepted, and these sum to "
            f"{sum(sizes)}; change the list"
        )


def _recomputed(policy: Policy, num_layers: int) -> Iterator[str]:
    if policy.recompute_layers is None:
        return
    given = f"policy.recompute_layers = {policy.recompute_layers}"
    num_chunks = policy.pipeline_parallel * policy.virtual_pipeline
    largest = max(policy.pipeline_layers or [num_layers // num_chunks])
    if policy.recompute is not Recompute.full:
        yield (
            f"{given}: null is accepted with policy.recompute = {policy.recompute.value}, which is of all "
            "layers alike; set it to null, or policy.recompute=full"
        )
    elif policy.recompute_layers > largest:
        yield (
            f"{given}: at most {largest} is accepted, the layers of the largest chunk; lower it, or set it "
            "to null for all of them"
        )


def _context_on_gpus(policy: Policy) -> Iterator[str]:
    """Of Transformer Engine's attention kernels FlashAttention and cuDNN's know the exchange."""
    if policy.context_parallel > 1 and policy.precision is Precision.fp32:
        yield (
            f"policy.context_parallel = {policy.context_parallel}: 1 is accepted on GPUs with "
            "policy.precision = fp32, in which no attention kernel splits sequences; set "
            "policy.precision=bf16 or policy.context_parallel=1"
        )
