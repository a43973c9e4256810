"""Jobs on one clock: who comes after whom, who shares what, and that no second of a role is lost."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlstack.tuning.parts import Sharing
from rlstack.tuning.simulate import Job, role_times, simulate

OWN_CORES = Sharing()


def job(role, work_s, after=(), cores=1.0, reason="work"):
    return Job(role, reason, work_s, cores, tuple(after))


@st.composite
def job_lists(draw):
    jobs = []
    for i in range(draw(st.integers(1, 25))):
        after = draw(st.sets(st.integers(0, i - 1), max_size=3)) if i else ()
        role = draw(st.sampled_from("abcd"))
        work_s = draw(st.floats(0, 10, allow_subnormal=False))
        jobs.append(job(role, work_s, after, draw(st.sampled_from([0.5, 1.0, 2.0])), reason=role))
    return jobs


sharings = st.builds(
    Sharing, cores=st.sampled_from([None, 1.0, 2.0, 3.0]), slowdown=st.sampled_from([0.0, 0.3])
)


def test_a_job_starts_when_those_before_it_and_its_role_are_ready():
    jobs = [job("a", 2), job("b", 3), job("a", 1, [1]), job("b", 1, [0])]
    spans = simulate(jobs, OWN_CORES)
    assert [(span.start_s, span.end_s) for span in spans] == [(0, 2), (0, 3), (3, 4), (3, 4)]


def test_two_jobs_on_one_core_take_twice_as_long_until_one_ends():
    spans = simulate([job("a", 1), job("b", 3)], Sharing(cores=1))
    assert [span.end_s for span in spans] == pytest.approx([2, 4])


def test_cores_to_spare_slow_nobody_down():
    spans = simulate([job("a", 1), job("b", 3)], Sharing(cores=2))
    assert [span.end_s for span in spans] == pytest.approx([1, 3])


def test_a_busy_neighbour_slows_down_while_it_is_there():
    spans = simulate([job("a", 1), job("b", 2)], Sharing(cores=2, slowdown=0.5))
    # Side by side 1 s of work takes 1.5 s; b has 1 s left then, and the machine for itself.
    assert [span.end_s for span in spans] == pytest.approx([1.5, 2.5])


def test_a_job_alone_is_not_slowed_down_by_itself():
    (span,) = simulate([job("a", 2, cores=2.0)], Sharing(cores=2, slowdown=0.5))
    assert span.end_s == pytest.approx(2)


def test_the_reason_for_waiting_is_what_ran_meanwhile():
    jobs = [job("c", 1, reason="first"), job("b", 2, [0], reason="second"), job("a", 1, [1]), job("b", 4)]
    times = role_times(jobs, simulate(jobs, OWN_CORES))
    assert times["a"].waiting_s == {"second": 2, "first": 1}
    assert (times["a"].busy_s, times["a"].idle_s) == (1, 3)
    assert times["b"].waiting_s == {"first": 1}


@given(job_lists(), sharings)
def test_every_second_of_a_role_is_busy_waiting_or_idle(jobs, sharing):
    spans = simulate(jobs, sharing)
    wall_s = max(span.end_s for span in spans)
    for time in role_times(jobs, spans).values():
        assert time.wall_s == pytest.approx(wall_s, abs=1e-9)
        assert min(time.busy_s, time.idle_s, *time.waiting_s.values(), 0) > -1e-9


@given(job_lists(), sharings)
def test_roles_and_needs_are_kept_and_no_job_is_faster_than_alone(jobs, sharing):
    spans = simulate(jobs, sharing)
    last = {}
    for each, span in zip(jobs, spans, strict=True):
        starts_after = [spans[place].end_s for place in each.after] + [last.get(each.role, 0.0)]
        assert span.start_s == pytest.approx(max(starts_after))
        assert span.end_s - span.start_s >= each.work_s - 1e-9
        last[each.role] = span.end_s


@given(job_lists(), st.sampled_from([1.0, 2.0]))
def test_shared_cores_do_no_more_work_than_they_can(jobs, cores):
    wall_s = max(span.end_s for span in simulate(jobs, Sharing(cores=cores)))
    # A job that asks for more cores than there are gets those that there are.
    assert wall_s * cores >= sum(each.work_s * min(each.cores, cores) for each in jobs) - 1e-6
    assert wall_s >= max(span.end_s for span in simulate(jobs, OWN_CORES)) - 1e-9
