from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rlstack.checkpoint.retention import Candidate, kept

CANDIDATES = st.lists(
    st.builds(Candidate, st.integers(0, 1000), st.none() | st.floats(-1, 1)),
    unique_by=lambda candidate: candidate.step,
)


def test_the_newest_and_the_best_stay() -> None:
    candidates = [
        Candidate(step, selection) for step, selection in ((5, 0.9), (10, 0.2), (15, None), (20, 0.3))
    ]
    assert kept(candidates, keep_last=2, keep_best=1) == {5, 15, 20}
    assert kept(candidates, keep_last=1, keep_best=2) == {5, 20}
    assert kept(candidates, keep_last=1, keep_best=0) == {20}


def test_of_equally_good_ones_the_later_stays() -> None:
    assert kept([Candidate(1, 0.5), Candidate(2, 0.5), Candidate(3, None)], keep_last=1, keep_best=1) == {
        2,
        3,
    }


@given(CANDIDATES, st.integers(1, 5), st.integers(0, 5))
def test_what_goes_is_older_than_all_kept_last_and_no_better_than_all_kept_best(
    candidates, keep_last, keep_best
) -> None:
    stay = kept(candidates, keep_last=keep_last, keep_best=keep_best)
    by_step = {candidate.step: candidate.selection for candidate in candidates}
    assert stay <= by_step.keys()
    assert len(stay) <= keep_last + keep_best
    newest = sorted(by_step, reverse=True)[:keep_last]
    assert set(newest) <= stay
    judged = [selection for selection in by_step.values() if selection is not None]
    for step in by_step.keys() - stay:
        selection = by_step[step]
        if selection is not None:
            kept_ones = [by_step[other] for other in stay]
            as_good = [other for other in kept_ones if other is not None and other >= selection]
            assert len(as_good) >= min(keep_best, len(judged))
