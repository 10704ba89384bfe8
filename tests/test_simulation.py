"""What the statistics promise, by simulation: sessions of two servers whose true ratio is known are drawn, and the
production functions are asked about them.

Repeats differ by run-to-run noise (1-2 % is usual), the machine drifts, and neighbouring repeats may be alike. What
came out, with 40,000 sessions of ABBA order under 3 % drift each, where 95 % is promised: 95.0 to 95.3 % with
independent noise; 93.2 to 94.1 % where neighbours are correlated by 0.3, and 93.1 to 94.2 % by 0.5. For repeats that
are added until the interval is narrow see `test_adding_repeats_until_the_interval_is_narrow...`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from loadgen.statistics import (
    UNTIL_LEAST,
    UNTIL_MOST,
    Ratio,
    Verdict,
    autocorrelation_time,
    holm,
    narrow,
    nearest_rank,
    order_interval,
    ratio_paired,
    ratio_welch,
    verdict,
)

TRUTH = 1.2

DIFFERENT = (Verdict.FASTER, Verdict.SLOWER, Verdict.SMALL_DIFFERENCE)

Sides = tuple[list[float], list[float]]


def ar1(rng: np.random.Generator, shape: tuple[int, int], phi: float) -> NDArray[np.float64]:
    """Rows of standard normal values, each correlated by phi with its neighbour."""
    noise = rng.standard_normal(shape)
    series = np.empty(shape)
    series[:, 0] = noise[:, 0]
    for i in range(1, shape[1]):
        series[:, i] = phi * series[:, i - 1] + math.sqrt(1 - phi**2) * noise[:, i]
    return series


def abba(pairs: int) -> str:
    return "".join("BA" if pair % 2 else "AB" for pair in range(pairs))


def sessions(
    seed: int, tries: int, order: str, *, noise: float, drift: float = 0.0, phi: float = 0.0, truth: float = TRUTH
) -> Iterator[Sides]:
    """The values of A and B of ``tries`` sessions; ``order`` says who is measured when. ``noise`` is the standard
    deviation of a repeat's logarithm, ``drift`` what the machine gains from the first repeat to the last."""
    logs = noise * ar1(np.random.default_rng(seed), (tries, len(order)), phi)
    values = np.exp(logs + drift * np.linspace(0, 1, len(order)))
    a, b = ([i for i, side in enumerate(order) if side == wanted] for wanted in "AB")
    yield from zip((100 * values[:, a]).tolist(), (100 * truth * values[:, b]).tolist(), strict=True)


def covers(ratio: Ratio) -> bool:
    assert ratio.low is not None
    assert ratio.high is not None
    return ratio.low <= TRUTH <= ratio.high


def share(hits: Iterator[bool]) -> float:
    found = list(hits)
    return sum(found) / len(found)


# An interval covers the truth -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize(
    ("noise", "drift", "phi", "pairs"),
    [
        (0.02, 0.0, 0.0, 6),
        (0.01, 0.0, 0.0, 4),
        (0.01, 0.03, 0.0, 6),
        (0.02, 0.03, 0.0, 10),
        (0.01, 0.03, 0.3, 6),
    ],
)
def test_the_paired_interval_covers_the_truth_in_95_of_100_sessions(
    seed: int, noise: float, drift: float, phi: float, pairs: int
) -> None:
    drawn = sessions(seed, 6000, abba(pairs), noise=noise, drift=drift, phi=phi)
    assert 0.93 <= share(covers(ratio_paired(a, b)) for a, b in drawn) <= 0.97


def test_one_target_after_the_other_books_the_drift_as_a_difference() -> None:
    """The same noise, drift and functions; the order alone is another."""
    for method in (ratio_paired, ratio_welch):
        drawn = sessions(4, 2000, "A" * 6 + "B" * 6, noise=0.01, drift=0.03)
        assert share(covers(method(a, b)) for a, b in drawn) < 0.5


def test_abba_has_no_bias_under_drift_and_always_a_first_has_one() -> None:
    def bias(order: str) -> float:
        drawn = sessions(5, 4000, order, noise=0.01, drift=0.03)
        return float(np.mean([math.log(ratio_paired(a, b).value / TRUTH) for a, b in drawn]))

    assert abs(bias(abba(6))) < 0.0005
    assert bias("AB" * 6) == pytest.approx(0.03 / 11, abs=0.0005)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_welch_interval_covers_the_truth_without_drift(seed: int) -> None:
    drawn = sessions(seed, 4000, "A" * 6 + "B" * 6, noise=0.02)
    assert 0.93 <= share(covers(ratio_welch(a, b)) for a, b in drawn) <= 0.97


@pytest.mark.parametrize("seed", [1, 2])
def test_the_welch_interval_allows_for_sides_of_other_noise_and_number(seed: int) -> None:
    rng = np.random.default_rng(seed)
    steady = np.exp(0.005 * rng.standard_normal((4000, 10))).tolist()
    restless = (TRUTH * np.exp(0.03 * rng.standard_normal((4000, 4)))).tolist()
    assert 0.93 <= share(covers(ratio_welch(a, b)) for a, b in zip(steady, restless, strict=True)) <= 0.97


@pytest.mark.parametrize("seed", [1, 2])
def test_the_ratio_of_p95_latencies_is_covered_although_requests_are_correlated(seed: int) -> None:
    rng, tries = np.random.default_rng(seed), 600
    requests = ar1(rng, (tries * 10, 200), 0.8).reshape(tries, 10, 200)
    logs = np.sort(0.3 * requests + 0.02 * rng.standard_normal((tries, 10, 1)), axis=2)
    p95 = [[math.exp(nearest_rank(run, 0.95)) for run in runs] for runs in logs]
    drawn = ((runs[:5], [TRUTH * value for value in runs[5:]]) for runs in p95)
    assert 0.925 <= share(covers(ratio_paired(a, b)) for a, b in drawn) <= 0.975


def test_the_interval_of_a_percentile_covers_correlated_requests_as_the_specification_says() -> None:
    truth, hits, naive = 1.6448536, 0, 0
    runs = ar1(np.random.default_rng(3), (800, 400), 0.8)
    for run in runs:
        ordered = np.sort(run)
        n_eff = len(run) / autocorrelation_time(run > nearest_rank(ordered, 0.95))
        low, high = order_interval(ordered, 0.95, n_eff) or (-math.inf, math.inf)
        hits += low <= truth <= high
        low, high = order_interval(ordered, 0.95, len(run)) or (-math.inf, math.inf)
        naive += low <= truth <= high
    assert 0.88 <= hits / len(runs) <= 0.96
    assert naive / len(runs) < 0.75


# Repeats that are added -----------------------------------------------------------------------------------------------


def stopped(a: list[float], b: list[float], until: float) -> Ratio:
    """The ratio of a session that ends with the first block whose interval is narrow."""
    for pairs in range(UNTIL_LEAST, UNTIL_MOST + 1, 2):
        ratio = ratio_paired(a[:pairs], b[:pairs])
        if narrow(ratio, until):
            break
    return ratio


@pytest.mark.parametrize(("noise", "pairs"), [(0.004, 6.0), (0.01, 10.5), (0.015, 19.2), (0.02, 27.5)])
def test_adding_repeats_until_the_interval_is_narrow_covers_a_little_less(noise: float, pairs: float) -> None:
    """Until 1 %, 10,000 sessions each under 3 % drift: 95.0 % at a noise of 0.4 %, 93.3 % at 1 %, 92.8 % at 1.5 % and
    93.5 % at 2 %. Where neighbours are correlated by 0.3 it is 93.6, 92.1, 90.6 and 90.2 %: many correlated pairs cover
    less even if their number is fixed."""
    found = [stopped(a, b, 0.01) for a, b in sessions(9, 3000, abba(UNTIL_MOST), noise=noise, drift=0.03)]
    assert 0.92 <= share(covers(ratio) for ratio in found) <= 0.965
    assert np.mean([ratio.n for ratio in found]) == pytest.approx(pairs, abs=0.3)
    assert abs(np.mean([math.log(ratio.value / TRUTH) for ratio in found])) < 0.0003


def test_stopping_at_four_pairs_would_believe_an_interval_too_often() -> None:
    """Why six pairs are the fewest: of four an interval is narrow by luck more often."""

    def coverage(least: int) -> float:
        hits = []
        for a, b in sessions(10, 3000, abba(UNTIL_MOST), noise=0.01):
            tried = (ratio_paired(a[:n], b[:n]) for n in range(least, UNTIL_MOST + 1, 2))
            hits.append(covers(next((ratio for ratio in tried if narrow(ratio, 0.01, least)), ratio_paired(a, b))))
        return share(iter(hits))

    assert coverage(4) < coverage(UNTIL_LEAST) - 0.005


# Verdicts of a family -------------------------------------------------------------------------------------------------


def families(seed: int, tries: int, cells: int) -> Iterator[list[Ratio]]:
    """Ratios of several cells between servers that do not differ."""
    drawn = sessions(seed, tries * cells, abba(6), noise=0.015, drift=0.03, truth=1.0)
    for _ in range(tries):
        yield [ratio_paired(*next(drawn)) for _ in range(cells)]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_family_of_cells_that_do_not_differ_is_called_different_in_at_most_5_of_100(seed: int) -> None:
    alone, holms, verdicts = [], [], []
    for ratios in families(seed, 1500, 6):
        p_values = [float(ratio.p or 0) for ratio in ratios]
        rejected = holm(p_values)
        alone.append(any(p <= 0.05 for p in p_values))
        holms.append(any(rejected))
        found = [verdict(ratio, 0.02, out, more_is_better=True) for ratio, out in zip(ratios, rejected, strict=True)]
        verdicts.append(any(one in DIFFERENT for one in found))
    assert share(iter(alone)) > 0.2  # without Holm: one family in four
    assert 0.03 <= share(iter(holms)) <= 0.065
    assert share(iter(verdicts)) <= 0.055


def test_a_difference_beyond_the_margin_is_found_in_most_families() -> None:
    """5 % at a noise of 1 %, six pairs: what the default is able to tell."""
    drawn = sessions(6, 6 * 300, abba(6), noise=0.01, drift=0.03, truth=1.05)
    found = []
    for _ in range(300):
        ratios = [ratio_paired(*next(drawn)) for _ in range(6)]
        rejected = holm([float(ratio.p or 0) for ratio in ratios])
        found += [verdict(ratio, 0.02, out, more_is_better=True) for ratio, out in zip(ratios, rejected, strict=True)]
    assert found.count(Verdict.FASTER) / len(found) > 0.9
    assert Verdict.SLOWER not in found
