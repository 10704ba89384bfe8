"""Arrivals are those of the process that was asked for, the same for the same seed, and never a sleep in a row."""

from __future__ import annotations

import itertools
import math
import statistics
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadgen.arrival import Arrival, offsets, piecewise

MANY = 20_000


def first(count: int, seed: int = 1, **shape: Any) -> list[float]:
    return list(itertools.islice(offsets(Arrival(**shape), seed), count))


def gaps(times: list[float]) -> list[float]:
    return [b - a for a, b in itertools.pairwise([0.0, *times])]


def test_a_constant_rate_has_no_rounding_that_adds_up() -> None:
    times = first(100_001, kind="constant", rate_rps=3.0)
    assert times[0] == 0.0
    assert times[99_999] == pytest.approx(33_333.0, rel=1e-15)


@pytest.mark.parametrize(
    ("shape", "cv"),
    [
        ({"kind": "poisson"}, 1.0),
        ({"kind": "gamma", "cv": 1.0}, 1.0),
        ({"kind": "gamma", "cv": 0.5}, 0.5),
        ({"kind": "gamma", "cv": 2.0}, 2.0),
        ({"kind": "gamma", "cv": 0.0}, 0.0),
    ],
)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_gaps_have_the_mean_and_the_variation_that_were_asked_for(shape: dict[str, Any], cv: float, seed: int) -> None:
    found = gaps(first(MANY, seed, rate_rps=40.0, **shape))
    mean = statistics.fmean(found)
    assert mean == pytest.approx(1 / 40, rel=5 * max(cv, 1e-6) / math.sqrt(MANY))  # five standard errors
    assert statistics.pstdev(found) / mean == pytest.approx(cv, rel=0.1, abs=1e-6)


def test_poisson_gaps_are_exponential() -> None:
    found = sorted(gaps(first(MANY, kind="poisson", rate_rps=10.0)))
    worst = max(abs((number + 1) / MANY - (1 - math.exp(-10 * gap))) for number, gap in enumerate(found))
    assert worst < 1.95 / math.sqrt(MANY)  # Kolmogorov and Smirnov, at one in a thousand


def test_a_burst_is_all_at_once_and_no_more() -> None:
    assert list(offsets(Arrival(kind="burst", count=5), 1)) == [0.0] * 5


def test_a_replay_is_in_order_and_complete() -> None:
    assert list(offsets(Arrival(kind="timestamps", timestamps=(2.0, 0.0, 1.5, 1.5)), 9)) == [0.0, 1.5, 1.5, 2.0]


RATES = ((0.0, 100.0), (10.0, 0.0), (20.0, 400.0), (30.0, 50.0))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_rate_that_changes_holds_in_each_of_its_pieces(seed: int) -> None:
    times = list(itertools.takewhile(lambda at: at < 60, offsets(Arrival(kind="piecewise", rates=RATES), seed)))
    for start, end, rate in ((0, 10, 100), (10, 20, 0), (20, 30, 400), (30, 60, 50)):
        expected = rate * (end - start)
        assert sum(start <= at < end for at in times) == pytest.approx(expected, abs=5 * math.sqrt(expected))


def test_a_change_of_rate_takes_effect_at_its_time() -> None:
    """Unit gaps of 1: one arrival a second at first, ten a second from 2.5 s on, whatever was pending then."""
    found = list(itertools.islice(piecewise(((0.0, 1.0), (2.5, 10.0)), itertools.repeat(1.0)), 5))
    assert found == pytest.approx([1.0, 2.0, 2.55, 2.65, 2.75])


def test_a_process_that_comes_to_rest_ends() -> None:
    found = list(piecewise(((1.0, 2.0), (3.0, 0.0)), itertools.repeat(1.0)))
    assert found == pytest.approx([1.5, 2.0, 2.5, 3.0])


SHAPES = st.sampled_from(
    [
        {"kind": "constant", "rate_rps": 7.0},
        {"kind": "poisson", "rate_rps": 7.0},
        {"kind": "gamma", "rate_rps": 7.0, "cv": 2.5},
        {"kind": "piecewise", "rates": RATES},
    ]
)


@settings(max_examples=60, derandomize=True, deadline=None)
@given(SHAPES, st.integers(0, 2**63))
def test_arrivals_never_go_back_and_are_the_same_for_the_same_seed(shape: dict[str, Any], seed: int) -> None:
    times = first(200, seed, **shape)
    assert times == sorted(times)
    assert times == first(200, seed, **shape)
    assert min(times) >= 0
    if shape["kind"] != "constant":
        assert times != first(200, seed + 1, **shape)
