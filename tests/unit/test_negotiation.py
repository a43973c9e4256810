"""How often layouts are published, read and planned with, and what is left in the store; counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest import mock

import pytest
from torch.distributed import HashStore

from rlstack.transfer import negotiation
from rlstack.transfer.errors import TransferError
from rlstack.transfer.group import Agreement, Meetings
from rlstack.transfer.layout import Piece, View
from rlstack.transfer.negotiation import Agreed, LayoutCache, Member, MemberLayout, negotiate, publish

NUM_SOURCES, RANKS_PER_ENGINE = 4, 2
TIMEOUT_S = 20.0


class Counted:
    """A member's connection to `store`, which counts the texts that go through it."""

    def __init__(self, store: HashStore) -> None:
        self._store = store
        self.count: Counter[str] = Counter()

    def __getattr__(self, method: str) -> Callable[..., Any]:
        return getattr(self._store, method)  # type: ignore[no-any-return]

    def set(self, key: str, value: Any) -> None:
        self.count["published"] += key.startswith("text/")
        self._store.set(key, value)

    def multi_get(self, keys: list[str]) -> list[bytes]:
        self.count["requests"] += 1
        self.count["read"] += sum(key.startswith("text/") for key in keys)
        return list(self._store.multi_get(keys))


def rows(index: int, count: int) -> list[Piece]:
    height = 16 // count
    return [Piece("w", ((index * height, (index + 1) * height), (0, 8)), View("w", 0, (8, 1)))]


def layout(member: Member) -> MemberLayout:
    """Two pairs of replicas, and engines of two workers."""
    if member.rank < NUM_SOURCES:
        return MemberLayout(rows(member.rank % 2, 2), {})
    return MemberLayout(
        rows((member.rank - NUM_SOURCES) % RANKS_PER_ENGINE, RANKS_PER_ENGINE), {"w": "float32"}
    )


def opened(
    caches: Sequence[LayoutCache], store: HashStore | None = None
) -> tuple[list[Agreed], list[Counted]]:
    """One negotiation of as many members as there are `caches`, in a thread each."""
    num_receivers = len(caches) - NUM_SOURCES
    members = [Member(rank, NUM_SOURCES, num_receivers) for rank in range(len(caches))]
    store = store or HashStore()
    stores = [Counted(store) for _ in members]

    def take_part(rank: int) -> Agreed:
        held, connection = layout(members[rank]), stores[rank]
        return negotiate(
            connection,  # type: ignore[arg-type]
            members[rank],
            held.pieces,
            dtypes=held.dtypes,
            bucket_bytes=64,
            timeout_s=TIMEOUT_S,
            cache=caches[rank],
        )

    with ThreadPoolExecutor(len(members)) as pool:
        return list(pool.map(take_part, range(len(members)))), stores


def new_caches(num_engines: int) -> list[LayoutCache]:
    return [LayoutCache() for _ in range(NUM_SOURCES + RANKS_PER_ENGINE * num_engines)]


@pytest.fixture
def planned() -> Iterator[mock.Mock]:
    with mock.patch.object(
        negotiation, "build_relayed_plan", side_effect=negotiation.build_relayed_plan
    ) as build:
        yield build


@pytest.mark.parametrize("num_engines", [1, 5])
def test_every_member_reads_each_layout_once_however_many_have_it(num_engines: int) -> None:
    store = HashStore()
    agreed, stores = opened(new_caches(num_engines), store)
    assert [connection.count["read"] for connection in stores] == [4] * len(stores)  # two of each side
    assert [connection.count["requests"] for connection in stores[1:]] == [3] * (len(stores) - 1)
    assert len({part.fingerprint for part in agreed}) == 1
    layouts_and_plans = 2 * len(stores)
    assert store.num_keys() == layouts_and_plans + 4 + 1  # and the shapes


def test_a_layout_that_is_there_is_not_published_again() -> None:
    store = Counted(HashStore())
    for rank in range(NUM_SOURCES):
        member = Member(rank, NUM_SOURCES, 2)
        publish(store, member, layout(member))  # type: ignore[arg-type]
    assert store.count["published"] == 2


def test_opening_again_with_one_new_engine_costs_that_engine_s_part_only(planned: mock.Mock) -> None:
    caches = new_caches(3)
    first, _ = opened(caches)
    assert planned.call_count == len(caches)
    planned.reset_mock()
    caches[-RANKS_PER_ENGINE:] = [LayoutCache() for _ in range(RANKS_PER_ENGINE)]
    again, stores = opened(caches)
    assert planned.call_count == RANKS_PER_ENGINE
    assert [connection.count["read"] for connection in stores] == [0] * 8 + [4] * RANKS_PER_ENGINE
    assert [part.deliveries for part in again] == [part.deliveries for part in first]


def test_opening_with_fewer_engines_plans_again_from_what_is_known(planned: mock.Mock) -> None:
    caches = new_caches(3)
    opened(caches)
    planned.reset_mock()
    few, stores = opened(caches[:-RANKS_PER_ENGINE])
    assert planned.call_count == len(stores) and sum(c.count["read"] for c in stores) == 0
    fresh, _ = opened(new_caches(2))
    assert [part.deliveries for part in few] == [part.deliveries for part in fresh]


def test_a_cache_keeps_what_the_last_opening_needed() -> None:
    cache = LayoutCache({"elsewhere": MemberLayout([], {})})
    opened([cache, *new_caches(1)[1:]])
    assert len(cache.layouts) == 4 and len(cache.agreed) == 1


def test_a_layout_that_is_not_what_its_digest_says_is_refused() -> None:
    store = HashStore()
    member = Member(0, NUM_SOURCES, 2)
    publish(store, member, layout(member))
    digest = store.get("layout/source0").decode()
    other = Member(1, NUM_SOURCES, 2)
    publish(store, other, layout(other))
    store.set(f"text/{digest}", store.get(f"text/{store.get('layout/source1').decode()}"))
    with pytest.raises(TransferError, match=f"published as {digest} is another one"):
        LayoutCache().fetch(store, [digest])


def test_the_keys_of_50_rounds_do_not_add_up() -> None:
    """Sources 0 and 1 meet receivers 0 to 2, which agree; nobody else."""
    store, keys = HashStore(), []
    names = {f"source{i}": f"{i}" for i in range(2)}, {f"receiver{i}": f"{i}" for i in range(3)}
    meetings = [
        Meetings(store, me=me, others=names[1 - side], timeout_s=TIMEOUT_S)
        for side in (0, 1)
        for me in names[side]
    ]
    agreements = [Agreement(store, receiver=i, receivers=range(3), timeout_s=TIMEOUT_S) for i in range(3)]

    def take_part(index: int) -> None:
        for version in range(1, 51):
            meetings[index].at(f"version{version}")
            if index >= 2:
                agreements[index - 2].reach(None, what=f"version {version}")
            if index == 4:
                keys.append(store.num_keys())

    with ThreadPoolExecutor(5) as pool:
        list(pool.map(take_part, range(5)))
    # At once: two rounds of five members, three receivers, and the count and the result of two rounds.
    assert len(keys) == 50 and max(keys) <= 2 * 5 + 3 + 2 * 2
    assert store.num_keys() <= 5 + 3 + 2


def test_what_a_slow_member_waits_for_stays_until_it_has_come_further() -> None:
    store = HashStore()
    meetings = Meetings(store, me="a", others={"slow": "the slow one"}, timeout_s=TIMEOUT_S)
    for version in (1, 2, 3):
        store.set(f"version{version}/slow", "here")
        meetings.at(f"version{version}")
        assert store.check([f"version{version}/a"])
        assert not store.check([f"version{version - 1}/a"])
    with pytest.raises(TransferError, match=r"version4: waited 0\.01 s for the slow one"):
        Meetings(store, me="a", others={"slow": "the slow one"}, timeout_s=0.01).at("version4")
    meetings._timeout_s = 0.01
    with pytest.raises(TransferError, match="version4"):
        meetings.at("version4")
    assert store.check(["version3/a"])  # which the slow one may still look for


def test_an_agreement_takes_every_receiver_the_same_few_requests() -> None:
    num_receivers, counts = 6, []

    def take_part(receiver: int) -> None:
        agreement = Agreement(shared, receiver=receiver, receivers=range(num_receivers), timeout_s=TIMEOUT_S)
        agreement._store = counting = mock.Mock(wraps=agreement._store)
        agreement.reach(None, what="version 1")
        counts.append([call[0] for call in counting.method_calls])
        assert all(len(call.args[0]) == 1 for call in counting.wait.call_args_list)

    shared = HashStore()
    with ThreadPoolExecutor(num_receivers) as pool:
        list(pool.map(take_part, range(num_receivers)))
    assert sorted(counts) == [["set", "add", "set", "delete_key", "delete_key"]] + [
        ["set", "add", "wait", "get"]
    ] * (num_receivers - 1)
