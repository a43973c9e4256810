from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlstack.orchestration.dealing import deal, put_together


@given(st.lists(st.integers(), max_size=20), st.integers(1, 6))
def test_what_is_dealt_out_evenly_comes_back_in_order(items: list[int], num_shares: int) -> None:
    shares = deal(items, num_shares)
    sizes = [len(share) for share in shares]
    assert len(sizes) == num_shares and max(sizes) - min(sizes) <= 1
    assert put_together(shares, len(items)) == items


def test_a_share_that_lacks_an_item_is_refused() -> None:
    with pytest.raises(ValueError, match="size 2"):
        put_together([[1, 3], [2]], 4)
