"""The statistics: the test vectors to the last digit, and what holds for every sample."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from loadgen.statistics import (
    Ratio,
    Verdict,
    autocorrelation_time,
    certified_rank,
    certified_tail,
    floor_of,
    holm,
    mean_interval,
    narrow,
    nearest_rank,
    order_interval,
    rank,
    ratio_paired,
    ratio_welch,
    repeats_needed,
    verdict,
)

A = [1000, 1012, 995, 1004, 990, 1008]
B = [1431, 1440, 1419, 1448, 1409, 1441]
VALUES = st.floats(0.01, 1e6)


def four(ratio: Ratio) -> tuple[float, float, float]:
    return round(ratio.value, 4), round(ratio.low, 4), round(ratio.high, 4)


# The test vectors -----------------------------------------------------------------------------------------------------


def test_the_paired_vector_comes_out_to_the_last_digit():
    assert four(ratio_paired(A, B)) == (1.4292, 1.4217, 1.4367)


def test_the_welch_vector_comes_out_to_the_last_digit():
    assert four(ratio_welch(A, B)) == (1.4292, 1.4120, 1.4466)


def test_the_floors_of_percentiles_are_those_of_the_specification():
    assert [floor_of(p) for p in (0.9, 0.95, 0.99, 0.999)] == [35, 73, 381, 3838]


def test_the_floor_of_the_median_is_where_the_whole_range_covers_it():
    assert floor_of(0.5) == 6
    assert 1 - 2 * 0.5**6 >= 0.95 > 1 - 2 * 0.5**5


@pytest.mark.parametrize(("certainty", "floors"), [(0.99, (64, 130, 662, 6636)), (0.95, (46, 93, 473))])
def test_a_tail_is_certified_from_the_floors_of_mlperf_on(certainty, floors):
    for p, n in zip((0.9, 0.95, 0.99, 0.999), floors, strict=False):
        assert certified_rank(n - 1, p, certainty) is None
        assert certified_rank(n, p, certainty) == 1


def test_no_value_over_the_limit_would_need_459_samples():
    from scipy.special import betainc

    assert betainc(459, 1, 0.99) < 0.01 <= betainc(458, 1, 0.99)


# Samples --------------------------------------------------------------------------------------------------------------


def test_the_nearest_rank_of_decimals_is_not_pushed_up_by_rounding():
    assert [rank(100, p) for p in (0.5, 0.9, 0.95, 0.99, 0.999)] == [50, 90, 95, 99, 100]
    assert [rank(n, 0.99) for n in (1, 101, 200, 700, 1000)] == [1, 100, 198, 693, 990]


@given(st.lists(VALUES, min_size=1, max_size=200), st.sampled_from([0.5, 0.9, 0.95, 0.99, 0.999]))
def test_a_percentile_is_the_smallest_value_that_enough_of_the_sample_does_not_exceed(values, p):
    found = nearest_rank(sorted(values), p)
    assert sum(value <= found for value in values) >= p * len(values) - 1e-9
    assert sum(value < found for value in values) < p * len(values)


@given(st.integers(64, 20_000), st.sampled_from([0.9, 0.95, 0.99]))
def test_a_certified_tail_uses_as_many_values_over_the_limit_as_the_sample_allows(n, p):
    from scipy.special import betainc

    t = certified_rank(n, p)
    assume(t is not None)
    assert betainc(n - t, t + 1, p) < 0.01 <= betainc(n - t - 1, t + 2, p)


def test_a_certified_tail_lies_above_its_percentile_and_correlation_raises_it():
    ordered = list(range(2000))
    independent, correlated = certified_tail(ordered, 0.99, 2000), certified_tail(ordered, 0.99, 700)
    assert nearest_rank(ordered, 0.99) < independent < correlated
    assert certified_tail(ordered, 0.99, 661.9) is None  # 662 are needed, and nearly is not enough
    assert certified_tail(ordered, 0.99, 662) == 1999


def test_the_interval_of_a_percentile_is_between_two_values_of_the_sample_by_their_ranks():
    assert order_interval(range(1, 101), 0.5, 100) == (41, 60)  # ceil(100 (0.5 -+ 1.96 0.05))
    assert order_interval(range(1, 101), 0.5, 25) == (31, 70)  # worth a quarter, and twice as wide
    assert order_interval(range(1, 382), 0.99, 381) == (374, 381)


def test_an_interval_whose_rank_leaves_the_sample_is_none():
    assert order_interval(range(381), 0.99, 381) is not None
    assert order_interval(range(380), 0.99, 380) is None
    assert order_interval(range(381), 0.99, 200) is None
    assert order_interval([], 0.5, 1) is None


def test_independent_requests_are_worth_themselves_and_correlated_ones_less():
    rng = np.random.default_rng(1)
    assert autocorrelation_time(rng.random(20_000) > 0.95) == pytest.approx(1, abs=0.1)
    repeated = np.repeat(rng.random(5_000) > 0.95, 8)
    assert autocorrelation_time(repeated) == pytest.approx(8, rel=0.2)


@pytest.mark.parametrize("series", [[], [True], [False] * 50])
def test_a_series_that_never_changes_has_no_correlation_to_allow_for(series):
    assert autocorrelation_time(series) == 1


# Repeats --------------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(VALUES, VALUES), min_size=3, max_size=12))
def test_the_interval_of_b_over_a_is_the_inverse_of_a_over_b(pairs):
    a, b = [x for x, _ in pairs], [y for _, y in pairs]
    for method in (ratio_paired, ratio_welch):
        one, other = method(a, b), method(b, a)
        assert one.value == pytest.approx(1 / other.value, rel=1e-9)
        assert math.log(one.low) == pytest.approx(-math.log(other.high), rel=1e-9, abs=1e-9)
        assert one.p == pytest.approx(other.p, rel=1e-6)


@given(st.lists(st.tuples(VALUES, VALUES), min_size=3, max_size=12), st.floats(0.01, 100))
def test_the_unit_of_measurement_does_not_matter(pairs, unit):
    a, b = [x for x, _ in pairs], [y for _, y in pairs]
    one, other = ratio_paired(a, b), ratio_paired([x * unit for x in a], [y * unit for y in b])
    assert other.value == pytest.approx(one.value, rel=1e-6)
    assert other.half_width == pytest.approx(one.half_width, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("method", [ratio_paired, ratio_welch])
def test_under_three_repeats_there_is_a_ratio_without_an_interval_and_the_reason(method):
    ratio = method([100, 110], [200, 220])
    assert ratio.value == pytest.approx(2)
    assert (ratio.low, ratio.high, ratio.p, ratio.half_width) == (None, None, None, None)
    assert ratio.why == "no interval: fewer than 3 repeats"


@pytest.mark.parametrize("method", [ratio_paired, ratio_welch])
@pytest.mark.parametrize("bad", [[1, 0, 1], [1, math.nan, 1], [1, -2, 1], [1, math.inf, 1], []])
def test_values_that_have_no_logarithm_are_refused(method, bad):
    with pytest.raises(ValueError, match="ratio"):
        method(bad, bad)


def test_sides_of_different_length_are_no_pairs():
    with pytest.raises(ValueError, match="3 repeats against 2"):
        ratio_paired([1, 2, 3], [1, 2])


def test_repeats_that_are_equal_to_the_last_bit_are_surely_the_same_or_surely_not():
    assert ratio_paired([4, 4, 4], [4, 4, 4]).p == 1
    assert ratio_paired([4, 4, 4], [8, 8, 8]).p < 1e-12
    assert ratio_paired([1, 1, 1], [8, 8, 8]).p == 0
    assert ratio_welch([4, 4, 4], [8, 8, 8]).low == pytest.approx(2)


def test_a_mean_of_two_values_has_no_interval():
    assert mean_interval([1, 2]) is None
    assert mean_interval([1, 2, 3]) == (pytest.approx(2 - 2.4841377), pytest.approx(2 + 2.4841377))


# Verdicts -------------------------------------------------------------------------------------------------------------


def interval(low: float, high: float, n: int = 6) -> Ratio:
    return Ratio(value=math.sqrt(low * high), low=low, high=high, p=0.01, n=n, paired=True)


@pytest.mark.parametrize(
    ("low", "high", "rejected", "expected"),
    [
        (1.03, 1.05, True, Verdict.FASTER),
        (0.95, 0.97, True, Verdict.SLOWER),
        (1.03, 1.05, False, Verdict.INCONCLUSIVE),
        (0.99, 1.01, False, Verdict.EQUIVALENT),
        (1.005, 1.01, True, Verdict.EQUIVALENT),
        (1.01, 1.04, True, Verdict.SMALL_DIFFERENCE),
        (0.96, 0.99, True, Verdict.SMALL_DIFFERENCE),
        (1.01, 1.04, False, Verdict.INCONCLUSIVE),
        (0.97, 1.01, False, Verdict.INCONCLUSIVE),
        (1.02, 1.05, True, Verdict.SMALL_DIFFERENCE),  # from the margin on, not beyond it
    ],
)
def test_the_verdict_follows_the_interval_the_margin_and_holm(low, high, rejected, expected):
    assert verdict(interval(low, high), 0.02, rejected, more_is_better=True) is expected


def test_less_latency_is_faster():
    assert verdict(interval(0.7, 0.8), 0.03, True, more_is_better=False) is Verdict.FASTER
    assert verdict(interval(1.2, 1.3), 0.03, True, more_is_better=False) is Verdict.SLOWER


def test_without_an_interval_nothing_is_decided():
    ratio = ratio_paired([1, 1], [2, 2])
    assert verdict(ratio, 0.02, True, more_is_better=True) is Verdict.INCONCLUSIVE
    assert repeats_needed(ratio, 0.02) is None


def test_the_repeats_needed_grow_with_the_square_of_the_width_up_to_four_times():
    def needed(half: float) -> int | None:
        return repeats_needed(interval(math.exp(-half), math.exp(half)), 0.02)

    assert needed(1.5 * math.log(1.02)) == 14  # ceil(6 * 2.25)
    assert needed(10 * math.log(1.02)) == 24
    assert needed(0.9 * math.log(1.02)) == 8  # narrow enough, and still across an edge: one more block


@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_rejects_no_more_than_no_correction_and_no_less_than_bonferroni(p_values):
    rejected = holm(p_values)
    for p, out in zip(p_values, rejected, strict=True):
        assert not out or p <= 0.05
        assert out or p > 0.05 / len(p_values) or p > 0.05


def test_holm_stops_at_the_first_that_it_keeps():
    assert holm([0.01, 0.04, 0.03]) == [True, False, False]
    assert holm([0.01, 0.02, 0.03]) == [True, True, True]
    assert holm([]) == []


@pytest.mark.parametrize(("half", "n", "expected"), [(0.009, 6, True), (0.009, 4, False), (0.0101, 30, False)])
def test_an_interval_is_narrow_from_six_pairs_on(half, n, expected):
    assert narrow(interval(math.exp(-half), math.exp(half), n), 0.01) is expected


def test_a_ratio_without_an_interval_is_never_narrow():
    assert not narrow(ratio_paired([1, 1], [2, 2]), 0.5, least=2)
