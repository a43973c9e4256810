"""What a worker of a vLLM engine has on its GPU: weights, room for the next ones, the rest for its cache."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rlstack.config.precision import unquantised_layers
from rlstack.config.schema import Precision
from rlstack.tuning.planning.demand import Demand
from rlstack.tuning.planning.derivation import Figure, derive, total
from rlstack.tuning.planning.shards import engine_parameters

_FRACTION_STEP = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineMemory:
    """`parts` are bytes that fill the GPU; `kv_cache` is what vLLM's own others leave it."""

    gpu_memory_fraction: float  # the config's, or less where the weights to come need the room
    parts: list[Figure]
    details: list[Figure]
    weights: Figure
    kv_bytes_per_token: Figure
    kv_cache: Figure
    sleeping: Figure  # what a colocated engine keeps of the GPU while it sleeps
    longest_sequence: int  # tokens; vLLM starts only if one of this length fits

    @property
    def kv_tokens(self) -> int:
        """Tokens that the cache holds."""
        return math.floor(self.kv_cache.value / self.kv_bytes_per_token.value)

    @property
    def fits(self) -> bool:
        return self.gpu_memory_fraction > 0 and self.kv_tokens >= self.longest_sequence


def engine_worker_memory(
    demand: Demand, *, tensor_parallel: int, policy_bytes: float | None = None
) -> EngineMemory:
    """Of one of `tensor_parallel` workers; policy_bytes: what a rank of the policy keeps of the same GPU."""
    architecture, assumed = demand.architecture, demand.assumptions
    counts = engine_parameters(architecture, tensor_parallel=tensor_parallel)
    weights = _weights(demand, layer=counts[0].value, worker=counts[-1].value)
    # transfer/inbox.py keeps a buffer for all of the worker's share, in the precision that it is sent in.
    shadow = derive(
        "weights to come", "B", "itemsize*worker", itemsize=demand.engine_itemsize, worker=counts[-1].value
    )
    if policy_bytes is None:
        other = derive("NCCL of the transfer", "B", "nccl_gb*gb", nccl_gb=assumed.nccl_gb, gb=10**9)
    else:
        other = derive("the policy, which stays", "B", "policy", policy=policy_bytes)
    fraction = _fraction(demand, outside=shadow.value + other.value)
    profile = _profile(demand, tensor_parallel)
    graphs = derive(
        "CUDA and its graphs",
        "B",
        "(context_gb + engine_graphs_gb)*gb",
        context_gb=assumed.context_gb,
        engine_graphs_gb=assumed.engine_graphs_gb,
        gb=10**9,
    )
    kv_cache = derive(
        "keys and values",
        "B",
        "max(0, fraction*memory - weights - profile - graphs)",
        fraction=fraction,
        memory=demand.memory_bytes,
        weights=weights.value,
        profile=profile.value,
        graphs=graphs.value,
    )
    per_token = derive(
        "keys and values per token",
        "B/token",
        "2*layers*kv_heads*head_dim*itemsize",
        layers=architecture.num_layers,
        kv_heads=max(1, architecture.num_kv_heads // tensor_parallel),
        head_dim=architecture.head_dim,
        itemsize=demand.engine_itemsize,
    )
    return EngineMemory(
        gpu_memory_fraction=fraction,
        parts=[weights, profile, graphs, kv_cache, shadow, other],
        details=[*counts, per_token],
        weights=weights,
        kv_bytes_per_token=per_token,
        kv_cache=kv_cache,
        # vLLM's sleep gives up what it has allocated for weights, keys and values; no more.
        sleeping=total("an engine that sleeps", [graphs, shadow]),
        longest_sequence=min(architecture.context_length, demand.longest_sequence),
    )


def _weights(demand: Demand, *, layer: float, worker: float) -> Figure:
    """In FP8 those of the quantised layers have one byte; embedding and head stay as they came."""
    formula, num_layers = "itemsize*worker", demand.architecture.num_layers
    if demand.rollout_precision is Precision.fp8:
        formula = "layers*layer + itemsize*(worker - layers*layer)"
        num_layers -= len(unquantised_layers(demand.config, num_layers=num_layers))
    return derive(
        "weights",
        "B",
        formula,
        itemsize=demand.engine_itemsize,
        layers=num_layers,
        layer=layer,
        worker=worker,
    )


def _fraction(demand: Demand, *, outside: float) -> float:
    """rollout.gpu_memory_fraction if it leaves `outside` bytes free, otherwise a round number that does."""
    configured, most = demand.config.rollout.gpu_memory_fraction, 1 - outside / demand.memory_bytes
    if configured <= most:
        return configured
    return max(0.0, round(math.floor(most / _FRACTION_STEP) * _FRACTION_STEP, 2))


def _profile(demand: Demand, tensor_parallel: int) -> Figure:
    """The largest batch that vLLM tries when it starts: a layer's activations, and the sampler's logits."""
    return derive(
        "largest batch",
        "B",
        "itemsize*tokens*(3*ffn/tp + 4*hidden) + 8*max_num_seqs*vocab",
        itemsize=demand.engine_itemsize,
        tokens=demand.assumptions.engine_batched_tokens,
        ffn=demand.architecture.ffn_size,
        hidden=demand.architecture.hidden_size,
        tp=tensor_parallel,
        max_num_seqs=demand.config.rollout.max_num_seqs,
        vocab=demand.architecture.vocab_size,
    )
