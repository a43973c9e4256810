"""Student's quantiles against published tables, and the coverage of the intervals where the mean is known."""

from __future__ import annotations

import statistics
from random import Random

import pytest

from rlstack.tuning.interval.confidence import Over, estimate, paired, t_probability, t_quantile


@pytest.mark.parametrize(
    ("probability", "freedom", "value"),  # NIST/SEMATECH e-Handbook, table 1.3.6.7.2
    [
        (0.95, 1, 6.314),
        (0.975, 1, 12.706),
        (0.95, 2, 2.920),
        (0.95, 3, 2.353),
        (0.99, 3, 4.541),
        (0.95, 4, 2.132),
        (0.975, 7, 2.365),
        (0.95, 19, 1.729),
        (0.95, 100, 1.660),
    ],
)
def test_quantiles_are_those_of_the_tables(probability: float, freedom: int, value: float) -> None:
    assert t_quantile(probability, freedom) == pytest.approx(value, abs=5e-4)


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 9, 50])
def test_the_quantile_is_where_the_probability_is_reached(freedom: int) -> None:
    for probability in (0.5, 0.75, 0.9, 0.999):
        assert t_probability(t_quantile(probability, freedom), freedom) == pytest.approx(probability)


def test_many_degrees_of_freedom_are_normal() -> None:
    normal = statistics.NormalDist().inv_cdf(0.95)
    assert t_quantile(0.95, 10_000) == pytest.approx(normal, abs=1e-3)


def test_one_value_has_no_interval() -> None:
    found = estimate([0.5], confidence=0.9)
    assert (found.mean, found.low, found.high, found.num, found.over) == (0.5, None, None, 1, Over.seeds)


@pytest.mark.parametrize("num", [2, 3, 4, 8])
@pytest.mark.parametrize("confidence", [0.8, 0.9])
def test_intervals_cover_the_true_mean_as_often_as_they_say(num: int, confidence: float) -> None:
    random, repetitions = Random(num), 4000
    found = [
        estimate([random.gauss(0.3, 0.02) for _ in range(num)], confidence=confidence)
        for _ in range(repetitions)
    ]
    covered = sum(each.low <= 0.3 <= each.high for each in found) / repetitions
    # Five standard errors of a share of 4000.
    assert covered == pytest.approx(confidence, abs=5 * (confidence * (1 - confidence) / repetitions) ** 0.5)


def test_pairing_takes_out_what_a_seed_does_to_all() -> None:
    random, repetitions, covered, widths = Random(1), 2000, 0, []
    for _ in range(repetitions):
        seeds = {seed: random.gauss(0, 0.1) for seed in range(4)}
        ours = {seed: 0.69 + common + random.gauss(0, 0.005) for seed, common in seeds.items()}
        theirs = {seed: 0.70 + common + random.gauss(0, 0.005) for seed, common in seeds.items()}
        found = paired(ours, theirs, confidence=0.9)
        assert found is not None and found.low is not None and found.high is not None
        covered += found.low <= -0.01 <= found.high
        widths.append(found.high - found.low)
    assert covered / repetitions == pytest.approx(0.9, abs=5 * (0.09 / repetitions) ** 0.5)
    assert statistics.fmean(widths) < 0.03  # unpaired it would be 0.2


def test_only_seeds_in_common_are_paired() -> None:
    found = paired({0: 0.5, 1: 0.6, 2: 9.0}, {0: 0.4, 1: 0.4, 3: 9.0}, confidence=0.9)
    assert found is not None and (found.num, found.mean) == (2, pytest.approx(0.15))
    assert paired({0: 0.5}, {1: 0.5}, confidence=0.9) is None
