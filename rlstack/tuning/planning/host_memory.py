"""What the processes of one node hold in its main memory, data and code apart."""

from __future__ import annotations

from dataclasses import dataclass

from rlstack.config.schedule_words import WITH_GENERATOR, keeps_served
from rlstack.model.weight_names import padded_vocab_size
from rlstack.tuning.parts import Layout
from rlstack.tuning.planning.demand import Demand
from rlstack.tuning.planning.derivation import Figure, derive, total


@dataclass(frozen=True, slots=True, kw_only=True)
class HostMemory:
    """`parts` are bytes of a node that add up to `total`."""

    parts: list[Figure]
    limit: Figure

    @property
    def total(self) -> Figure:
        return total("total", self.parts)

    @property
    def fits(self) -> bool:
        return self.total.value <= self.limit.value


def host_memory(
    demand: Demand, layout: Layout, *, parameters: float, asleep: float | None = None
) -> HostMemory:
    """Of a node full of policy ranks that hold `parameters` elements each.

    asleep: bytes of the weights of an engine's worker that shares a GPU with a rank.
    """
    ranks = min(demand.gpu.gpus_per_node, layout.num_ranks)
    shard = {"ranks": ranks, "parameters": parameters, "itemsize": demand.itemsize}
    parts = [
        derive(
            "processes", "B", "ranks*process_gb*gb", process_gb=demand.assumptions.process_gb, gb=1e9, **shard
        )
    ]
    if keeps_copies(demand):
        parts.append(derive("the engines' version", "B", "ranks*itemsize*parameters", **shard))
    if demand.config.schedule.save_every is not None:
        parts += _checkpoint(demand, layout, shard)
    if demand.config.policy.optimizer_offload:
        parts.append(_optimiser(demand, layout, shard))
    if asleep is not None:
        parts.append(derive("engines that sleep", "B", "ranks*weights", ranks=ranks, weights=asleep))
    limit = derive(
        "limit", "B", "node_memory_gb*gb", node_memory_gb=demand.assumptions.node_memory_gb, gb=1e9
    )
    return HostMemory(parts=parts, limit=limit)


def _optimiser(demand: Demand, layout: Layout, shard: dict[str, float]) -> Figure:
    """The state between steps: policy/offload.py. torch rounds page-locked memory up to powers of two, tensor
    by tensor: to 4/3 of it on average, where sizes are as likely as others."""
    return derive(
        "the optimiser between steps",
        "B",
        "ranks*4/3*state*parameters/replicas",
        state=8 if demand.itemsize == 4 else 12,
        replicas=layout.replicas,
        ranks=shard["ranks"],
        parameters=shard["parameters"],
    )


def keeps_copies(demand: Demand) -> bool:
    """Whether the ranks copy what the engines hold to the host: see policy/served.py."""
    config = demand.config
    shares = demand.keeps_reference and config.schedule.reference_sync == WITH_GENERATOR
    return keeps_served(config) and not shares


def _checkpoint(demand: Demand, layout: Layout, shard: dict[str, float]) -> list[Figure]:
    """Until it is on the disk: policy/checkpointing.py, begin_save.

    The replicas share what they write, tensor by tensor: weights in as many versions as there are, and the
    optimiser's state. A tensor is whole on its owner, so that replicas with a large one may have more than
    their share: the embedding, on as many ranks of the node as are of one replica.
    """
    versions = 1 + demand.keeps_reference + keeps_copies(demand)
    architecture = demand.architecture
    vocab = padded_vocab_size(architecture, layout.tensor_parallel)
    given = shard | {"versions": versions, "replicas": layout.replicas}
    return [
        derive("a checkpoint's weights", "B", "ranks*versions*itemsize*parameters/replicas", **given),
        derive("a checkpoint's optimiser", "B", "ranks*12*parameters/replicas", **given),
        derive(
            "the largest tensor, whole",
            "B",
            "owners*(12 + versions*itemsize)*largest*(1 - 1/replicas)",
            owners=min(shard["ranks"], layout.tensor_parallel),
            largest=vocab * architecture.hidden_size / layout.tensor_parallel,
            **given,
        ),
    ]
