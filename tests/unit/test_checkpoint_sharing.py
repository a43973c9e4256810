"""How data-parallel replicas share the writing of a checkpoint, and the rounds in which it is read."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rlstack.policy.checkpoint_state import owners_of, rounds_of, split_by

sizes = st.lists(st.integers(1, 1000), max_size=60)


@given(st.integers(0, 500), st.integers(1, 500), st.integers(1, 100))
def test_the_shares_of_a_parameter_are_all_of_it_each_on_its_replica(
    start: int, size: int, share: int
) -> None:
    found = split_by(share, start, start + size)
    assert [part.start for part in found] == [0, *(part.end for part in found[:-1])]
    assert found[-1].end == size
    for replica, low, high in found:
        assert replica * share <= start + low < start + high <= (replica + 1) * share


@given(sizes, st.integers(1, 16))
def test_owners_have_about_as_much_each(sizes: list[int], num_replicas: int) -> None:
    owners = owners_of(sizes, num_replicas)
    loads = [
        sum(size for size, owner in zip(sizes, owners, strict=True) if owner == replica)
        for replica in range(num_replicas)
    ]
    assert sum(loads) == sum(sizes)
    # What the plan of a node's memory counts with: a share, and nearly all of the largest tensor.
    most = sum(sizes) / num_replicas + max(sizes, default=0) * (1 - 1 / num_replicas)
    assert max(loads) <= most + 1e-9


@given(sizes, st.integers(1, 1500))
def test_a_round_has_at_most_so_many_elements_or_one_tensor(sizes: list[int], most: int) -> None:
    rounds = rounds_of(sizes, most)
    assert [number for numbers in rounds for number in numbers] == list(range(len(sizes)))
    assert all(sum(sizes[number] for number in numbers) <= most or len(numbers) == 1 for numbers in rounds)
    assert all(numbers for numbers in rounds)
