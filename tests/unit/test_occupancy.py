"""Spans become time that adds up, and every wait has its reason."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlstack.telemetry.occupancy import Occupancy, Piece, State, cover, within
from rlstack.telemetry.timeline import CONTROLLER, Span
from rlstack.telemetry.waiting import Kind, Reason, account, kind_of

ROLES = (CONTROLLER, "policy rank 0", "policy rank 1", "engine 0", "rewards math", "reward model judge 0")


def busy(role, phase, start_s, end_s):
    return Span(role, phase, start_s, end_s)


def waits(reason, start_s, end_s, role=CONTROLLER):
    return Span(role, "wait", start_s, end_s, reason)


def short(pieces):
    return [(p.start_s, p.end_s, p.what or p.state.value) for p in pieces]


times = st.floats(0, 100) | st.integers(0, 10).map(float)
spans = st.lists(
    st.builds(
        lambda role, phase, a, b, reason: Span(role, phase, min(a, b), max(a, b), reason),
        st.sampled_from(ROLES),
        st.sampled_from(["train", "generate", "sync"]),
        times,
        times,
        st.none() | st.sampled_from(list(Reason)),
    ),
    max_size=30,
)


@given(spans, times, times)
def test_the_states_of_every_role_add_up_to_the_time_that_passed(spans, a, b):
    start_s, end_s = min(a, b), max(a, b)
    accounted = account(spans, start_s, end_s)
    assert accounted.keys() == {CONTROLLER, *(span.role for span in spans)}
    for pieces in accounted.values():
        assert all(piece.start_s < piece.end_s for piece in pieces)
        assert all(before.end_s == after.start_s for before, after in pairwise(pieces))  # exactly
        if pieces:
            assert (pieces[0].start_s, pieces[-1].end_s) == (start_s, end_s)
        assert Occupancy.of(pieces).total_s == pytest.approx(end_s - start_s)


@given(spans, st.lists(times, min_size=2, max_size=6, unique=True))
def test_steps_taken_apart_are_the_whole_taken_at_once(spans, edges):
    edges = sorted(edges)
    whole = account(spans, edges[0], edges[-1])
    for start_s, end_s in pairwise(edges):
        assert {role: Occupancy.of(within(pieces, start_s, end_s)) for role, pieces in whole.items()} == {
            role: _close(Occupancy.of(pieces)) for role, pieces in account(spans, start_s, end_s).items()
        }


def _close(expected):
    seconds = (
        {key: pytest.approx(value) for key, value in each.items()}
        for each in (expected.busy_s, expected.waiting_s)
    )
    return Occupancy(*seconds, idle_s=pytest.approx(expected.idle_s))


@given(spans)
def test_a_moment_in_a_span_is_never_idle_and_one_outside_all_is_never_busy(spans):
    for role, pieces in account(spans, 0.0, 100.0).items():
        own = [span for span in spans if span.role == role]
        for piece in pieces:
            middle = (piece.start_s + piece.end_s) / 2
            inside = [span for span in own if span.start_s <= middle < span.end_s]
            if inside:
                assert piece.what in {span.reason or span.phase for span in inside}
            else:
                assert piece.state is not State.busy or role == CONTROLLER


def test_of_spans_inside_each_other_the_inner_one_counts():
    nested = [busy("a", "train", 0, 10), busy("a", "forward", 2, 6), waits("pipeline_bubble", 3, 4, "a")]
    assert short(cover(nested, -1, 11)) == [
        (-1, 0, "idle"),
        (0, 2, "train"),
        (2, 3, "forward"),
        (3, 4, "pipeline_bubble"),
        (4, 6, "forward"),
        (6, 10, "train"),
        (10, 11, "idle"),
    ]


def test_a_window_inside_a_span_still_sees_what_began_last():
    nested = [busy("a", "train", 0, 10), busy("a", "forward", 1, 9)]
    assert short(cover(nested, 4, 5)) == [(4, 5, "forward")]


def test_spans_that_follow_each_other_are_one_piece():
    assert short(cover([busy("a", "x", 0, 1), busy("a", "x", 1, 2)], 0, 2)) == [(0, 2, "x")]


def states(role, reason, *others):
    """What a role without a span is doing while the controller waits for `reason`."""
    pieces = account([waits(reason, 0, 1), busy(role, "x", 8, 9), *others], 0, 1)[role]
    return [(piece.state.value, piece.what) for piece in pieces]


@pytest.mark.parametrize(
    ("role", "reason", "state"),
    [
        ("policy rank 0", "rollouts", ("waiting", "rollouts")),
        ("policy rank 0", "reward", ("waiting", "reward")),
        ("policy rank 0", "training", ("waiting", "controller")),  # its call is on the way
        ("policy rank 0", "sync", ("waiting", "sync")),
        ("engine 0", "rollouts", ("waiting", "controller")),
        ("engine 0", "reward", ("idle", "")),
        ("engine 0", "training", ("idle", "")),
        ("engine 0", "sync", ("waiting", "sync")),
        ("engine 0", "start_up", ("waiting", "start_up")),
        ("rewards math", "rollouts", ("waiting", "rollouts")),
        ("rewards math", "training", ("idle", "")),
        ("reward model judge 0", "reward", ("waiting", "controller")),
        ("rewards math", "evaluation", ("waiting", "evaluation")),
    ],
)
def test_a_role_without_a_span_waits_for_what_its_next_work_is_made_of(role, reason, state):
    assert states(role, reason) == [state]


def test_a_role_whose_peers_are_at_work_waits_for_them():
    assert states("policy rank 0", "training", busy("policy rank 1", "train", 0, 1)) == [
        ("waiting", "training")
    ]
    assert states("engine 0", "rollouts", busy("engine 1", "generate", 0, 1)) == [("waiting", "rollouts")]


def test_while_the_controller_is_busy_the_policy_waits_for_it_and_the_others_are_ahead():
    step = [
        busy(CONTROLLER, "step", 0, 1),
        *(busy(role, "x", 8, 9) for role in ("policy rank 0", "engine 0")),
    ]
    accounted = account(step, 0, 1)
    assert short(accounted["policy rank 0"]) == [(0, 1, "controller")]
    assert accounted["engine 0"] == [Piece(0, 1, State.idle, "")]
    assert accounted[CONTROLLER] == [Piece(0, 1, State.busy, "step")]


def test_a_step_of_a_blocking_loop_and_of_one_that_overlaps():
    """One step each: sampling 4 s, scoring 1 s, training 3 s."""
    blocking = [
        waits("rollouts", 0, 4),
        busy("engine 0", "generate", 0, 4),
        waits("reward", 4, 5),
        busy("rewards math", "score", 4, 5),
        waits("training", 5, 8),
        busy("policy rank 0", "train", 5, 8),
    ]
    of = {role: Occupancy.of(pieces) for role, pieces in account(blocking, 0, 8).items()}
    assert of["policy rank 0"] == Occupancy({"train": 3}, {"rollouts": 4, "reward": 1}, 0)
    assert of["engine 0"] == Occupancy({"generate": 4}, {}, 4)
    assert of["rewards math"] == Occupancy({"score": 1}, {"rollouts": 4}, 3)
    overlapping = [
        waits("rollouts", 0, 1),
        busy("engine 0", "generate", 0, 4),
        busy("rewards math", "score", 2, 3),
        waits("training", 1, 4),
        busy("policy rank 0", "train", 1, 4),
    ]
    of = {role: Occupancy.of(pieces) for role, pieces in account(overlapping, 0, 4).items()}
    assert of["policy rank 0"] == Occupancy({"train": 3}, {"rollouts": 1}, 0)
    assert of["engine 0"] == Occupancy({"generate": 4}, {}, 0)
    assert math.isclose(of["rewards math"].total_s, 4)


def test_the_kind_of_a_role_is_in_its_name():
    kinds = [Kind.controller, Kind.policy, Kind.policy, Kind.engine, Kind.reward, Kind.reward]
    assert [kind_of(role) for role in ROLES] == kinds
