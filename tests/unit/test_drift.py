"""The law that drift follows, recovered from points with and without noise."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlstack.orchestration.drift import DriftLaw, Point, above_floor, fit

SCALES = st.floats(1e-5, 1.0)


def points(law: DriftLaw, ages: range, *, noise: float = 0.0, seed: int = 0) -> list[Point]:
    random_numbers = random.Random(seed)
    return [Point(age, law.at(age) * math.exp(random_numbers.gauss(0.0, noise))) for age in ages]


@given(SCALES, st.floats(0.5, 2.0), st.integers(4, 60))
def test_a_law_is_recovered_from_its_own_points(scale: float, exponent: float, oldest: int) -> None:
    law = fit(points(DriftLaw(scale, exponent), range(1, oldest)))
    assert law is not None
    assert law.scale == pytest.approx(scale)
    assert law.exponent == pytest.approx(exponent)


@given(SCALES, st.floats(0.5, 2.0), st.integers(1, 1000))
def test_the_age_of_a_drift_is_where_it_is_reached(scale: float, exponent: float, age: int) -> None:
    law = DriftLaw(scale, exponent)
    assert law.age_of(law.at(age)) == pytest.approx(age)


@pytest.mark.parametrize("exponent", [0.5, 1.0, 1.5])
@pytest.mark.parametrize("seed", range(5))
def test_noise_of_a_fifth_leaves_the_end_of_an_interval_within_a_quarter(exponent: float, seed: int) -> None:
    truth = DriftLaw(0.002, exponent)
    law = fit(points(truth, range(1, 10), noise=0.2, seed=seed))
    assert law is not None
    assert law.at(9) == pytest.approx(truth.at(9), rel=0.25)


def test_one_age_tells_nothing_of_the_exponent() -> None:
    assert fit([Point(1, 0.002), Point(1, 0.002)]) == pytest.approx(DriftLaw(0.002, 1.0))
    assert fit([Point(1, 0.002), Point(2, 0.016)]) == pytest.approx(DriftLaw(0.004, 1.0))


@given(st.lists(st.tuples(st.integers(1, 50), st.floats(1e-9, 10.0)), min_size=1))
def test_no_points_make_a_law_that_grows_out_of_hand(drawn: list[tuple[int, float]]) -> None:
    law = fit([Point(*point) for point in drawn])
    assert law is not None
    assert 0.5 <= law.exponent <= 2.0
    assert math.isfinite(law.scale)


def test_without_points_there_is_no_law_and_below_the_floor_nothing_drifts() -> None:
    assert fit([]) is None
    law = fit([Point(1, 0.0), Point(2, 0.0), Point(3, 0.1)])
    assert law == DriftLaw(0.0, 1.0)
    assert law.at(100) == 0.0
    assert law.age_of(0.01) == math.inf


def test_the_floor_is_taken_off_as_an_independent_part() -> None:
    assert above_floor(0.05, 0.03) == pytest.approx(0.04)
    assert above_floor(0.02, 0.03) == 0.0
    # The mean distance of two independent normal parts, which is what the squares are for.
    random_numbers = random.Random(0)
    drift = [random_numbers.gauss(0.0, 0.04) for _ in range(20000)]
    floor = [random_numbers.gauss(0.0, 0.03) for _ in range(20000)]

    def mean(values: list[float]) -> float:
        return sum(map(abs, values)) / len(values)

    both = mean([a + b for a, b in zip(drift, floor, strict=True)])
    assert above_floor(both, mean(floor)) == pytest.approx(mean(drift), rel=0.03)
