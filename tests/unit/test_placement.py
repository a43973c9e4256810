"""Which GPU everything gets, on played clusters: nothing twice, groups whole, and refusals that say why."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlstack.config.schema import Cluster, Data, Policy, Reward, RewardModel, Rollout, RunConfig, Task
from rlstack.config.schema import Placement as Mode
from rlstack.errors import ConfigError
from rlstack.orchestration.placement import Decision, Demand, Node, Slot, place, roles_by_bundle

COPIES = {"name": "judge", "path": "judge"}


def nodes(*gpus: int, cores: int = 64) -> list[Node]:
    return [Node(f"node{i}", f"10.0.0.{i}", count, cores) for i, count in enumerate(gpus)]


def config(
    *,
    tp: int = 1,
    pp: int = 1,
    dp: int = 1,
    engines: int = 1,
    engine_tp: int = 1,
    copies: int = 0,
    mode=Mode.split,
) -> RunConfig:
    models = [RewardModel(**COPIES, num_actors=copies)] if copies else []
    return RunConfig(
        policy=Policy(tensor_parallel=tp, pipeline_parallel=pp, data_parallel=dp),
        rollout=Rollout(engines=engines, tensor_parallel=engine_tp),
        reward=Reward(models=models),
        data=Data(tasks=[Task(name="a", path="a", reward="judge" if copies else "math")]),
        cluster=Cluster(placement=mode),
    )


def placed(settings: RunConfig, on: list[Node], *, ranks_per_core: int = 4) -> Decision:
    decision = place(
        Demand.of(settings), on, use_gpus=any(n.num_gpus for n in on), ranks_per_core=ranks_per_core
    )
    check(decision, settings)
    return decision


def check(decision: Decision, settings: RunConfig) -> None:
    """Nobody shares but colocated engines with the policy; what is wanted of a node is there, and used."""
    copies = [slot for of_model in decision.reward_models.values() for slot in of_model]
    colocated = settings.cluster.placement is Mode.colocated
    taken = gpus([*decision.policy, *copies, *([] if colocated else decision.engines)])
    if decision.use_gpus:
        assert len(taken) == len(set(taken))
        assert sorted(taken) == [
            (i, gpu) for i, b in enumerate(decision.bundles) for gpu in range(b.num_gpus)
        ]
        assert set(gpus(decision.engines)) <= set(gpus(decision.policy)) or not colocated
        assert all(bundle.num_gpus <= bundle.node.num_gpus for bundle in decision.bundles)
        assert {len(slot.gpus) for slot in decision.engines} == {settings.rollout.tensor_parallel}
    assert len({bundle.node for bundle in decision.bundles}) == len(decision.bundles)
    tp = settings.policy.tensor_parallel
    for first in range(0, len(decision.policy), tp):
        assert len({slot.bundle for slot in decision.policy[first : first + tp]}) == 1


def gpus(slots) -> list[tuple[int, int]]:
    return [(slot.bundle, gpu) for slot in slots for gpu in slot.gpus]


def refused(settings: RunConfig, on: list[Node], **limits: int) -> str:
    with pytest.raises(ConfigError) as error:
        placed(settings, on, **limits)
    return str(error.value)


def test_one_node_of_eight_gpus() -> None:
    decision = placed(config(tp=2, dp=2, engines=2, engine_tp=2), nodes(8))
    assert [slot.gpus for slot in decision.policy] == [(0,), (1,), (2,), (3,)]
    assert [slot.gpus for slot in decision.engines] == [(4, 5), (6, 7)]
    assert [(bundle.num_gpus, bundle.node.id) for bundle in decision.bundles] == [(8, "node0")]


def test_8b_on_32_and_8() -> None:
    """The policy fills four nodes in the order of its ranks, the engines have the fifth to themselves."""
    decision = placed(config(tp=2, dp=16, engines=8), nodes(8, 8, 8, 8, 8))
    assert [slot.bundle for slot in decision.policy] == [rank // 8 for rank in range(32)]
    assert {slot.bundle for slot in decision.engines} == {4}


def test_70b_on_64_and_16() -> None:
    """A tensor-parallel group is a node; pipelines and engines span none."""
    decision = placed(config(tp=8, pp=4, dp=2, engines=4, engine_tp=4), nodes(*[8] * 10))
    assert [slot.bundle for slot in decision.policy] == [rank // 8 for rank in range(64)]
    assert [slot.bundle for slot in decision.engines] == [8, 8, 9, 9]


def test_colocated_on_one_gpu_and_on_eight() -> None:
    decision = placed(config(mode=Mode.colocated), nodes(1))
    assert decision.policy == decision.engines == (Slot(0, (0,)),)
    decision = placed(config(tp=2, dp=4, engines=2, engine_tp=4, mode=Mode.colocated), nodes(4, 8))
    assert {bundle.node.id for bundle in decision.bundles} == {"node1"}
    assert [slot.gpus for slot in decision.engines] == [(0, 1, 2, 3), (4, 5, 6, 7)]


def test_reward_models_have_gpus_of_their_own_beside_colocated_ones() -> None:
    decision = placed(config(dp=6, engines=6, copies=2, mode=Mode.colocated), nodes(8))
    assert [slot.gpus for slot in decision.reward_models["judge"]] == [(6,), (7,)]


def test_unlike_nodes_get_what_fits_them() -> None:
    decision = placed(config(tp=2, dp=2, engine_tp=8), nodes(0, 4, 8))
    assert {decision.bundles[slot.bundle].node.id for slot in decision.engines} == {"node2"}
    assert {decision.bundles[slot.bundle].node.id for slot in decision.policy} == {"node1"}


def test_engines_alone_and_rewards_alone() -> None:
    settings = config(dp=64, engines=2, copies=1)
    alone = place(Demand.of(settings, policy=False), nodes(3), use_gpus=True, ranks_per_core=4)
    assert (alone.policy, len(alone.engines), alone.bundles[0].num_gpus) == ((), 2, 3)
    rewards = place(
        Demand.of(settings, policy=False, engines=False), nodes(3), use_gpus=True, ranks_per_core=4
    )
    assert (rewards.engines, rewards.bundles[0].num_gpus) == ((), 1)


def test_cores_are_shared_only_where_they_do_not_suffice() -> None:
    """Two nodes without GPUs are one for the policy and one for the engine; one node has to do if it must."""
    settings = config(pp=2)
    decision = placed(settings, nodes(0, 0, cores=2))
    assert [slot.bundle for slot in decision.policy] == [0, 0]
    assert [slot.bundle for slot in decision.engines] == [1]
    assert all(slot.gpus == () for slot in (*decision.policy, *decision.engines))
    (only,) = placed(settings, nodes(0, cores=2)).bundles
    assert (only.num_gpus, only.num_processes) == (0, 3)
    assert placed(config(mode=Mode.colocated), nodes(0, cores=2)).bundles[0].num_processes == 2


@pytest.mark.parametrize(
    ("settings", "on", "says"),
    [
        (
            config(tp=2, dp=16, engines=8, copies=2),
            nodes(8, 8, 8),
            "the policy's ranks = 32 and rollout.engines x tensor_parallel = 8 and reward.models' num_actors "
            "x tensor_parallel = 2: room for 42 GPUs is needed, and there is room for 24 (3 x 8); lower one "
            "of them (policy.data_parallel, rollout.engines), or give a larger cluster as cluster.address, "
            "or set cluster.placement=colocated",
        ),
        (config(tp=16), nodes(8, 8, 8), "policy.tensor_parallel = 16: at most 8 is accepted here"),
        (config(engine_tp=16), nodes(8, 8), "rollout.tensor_parallel = 16: at most 8 is accepted here"),
        (config(tp=3, dp=5), nodes(8, 8), "there is enough in all, but not in pieces"),
        (config(dp=16, mode=Mode.colocated), nodes(8, 8), "the largest node has 8; set it to split"),
        (config(engines=2, mode=Mode.colocated), nodes(8), "at most 1 is accepted with cluster.placement"),
        (config(copies=1, mode=Mode.colocated), nodes(1), "room for 2 GPUs is needed"),
        (config(dp=8), nodes(0, cores=2), "room for 9 processes is needed, and there is room for 8 (1 x 8)"),
        (config(tp=9), nodes(0, 0, cores=2), "at most 8 is accepted here"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_with_what_to_change(settings, on, says) -> None:
    assert says in refused(settings, on)


@given(
    gpus=st.lists(st.sampled_from([1, 2, 4, 8]), min_size=1, max_size=6),
    tp=st.sampled_from([1, 2, 4, 8]),
    dp=st.integers(1, 6),
    engines=st.integers(1, 6),
    engine_tp=st.sampled_from([1, 2, 4, 8]),
    copies=st.integers(0, 3),
    mode=st.sampled_from(Mode),
)
def test_whatever_fits_is_placed_whole(gpus, tp, dp, engines, engine_tp, copies, mode) -> None:
    """With sizes that are powers of two the search finds a place wherever there is one: a sum tells."""
    settings = config(tp=tp, dp=dp, engines=engines, engine_tp=engine_tp, copies=copies, mode=mode)
    widest = max(tp, engine_tp)
    needed = tp * dp + engines * engine_tp + copies
    try:
        placed(settings, nodes(*gpus))
    except ConfigError:
        assert mode is Mode.colocated or needed > sum(g // widest * widest for g in gpus)


def test_the_roles_of_a_node_are_named() -> None:
    decision = placed(config(tp=2, pp=2, engines=2, engine_tp=2, copies=2), nodes(8, 2))
    roles = dict(zip((bundle.node.id for bundle in decision.bundles), roles_by_bundle(decision), strict=True))
    assert roles == {
        "node0": ["policy-0", "policy-1", "policy-2", "policy-3", "engine-0", "engine-1"],
        "node1": ["judge-0", "judge-1"],
    }
