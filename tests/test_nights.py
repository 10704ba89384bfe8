"""Verdicts of nights: the specification's test vector, the order of the states, and how often they are wrong."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import pytest
from made_nights import VECTOR
from numpy.typing import NDArray

from loadgen.nights.baseline import Entry, kept_runs
from loadgen.nights.regression import WINDOW, against, candidates, discoveries, still_worse
from loadgen.nights.series import Point, Series, gate
from loadgen.nights.verdicts import Past, SeriesVerdict, State, confirm, drift, judge, line
from loadgen.statistics import ratio_welch

LOGS = tuple(math.log(value) for value in VECTOR)
FAST = Series(key="fast", scenario="qwen3-moe", cell="batch16", target="tp2", measure="output_tok_s")
SLOW = Series(key="slow", scenario="qwen3-moe", cell="batch16", target="tp2", measure="p50 ttft_s")


def point(value: float | None, series: Series = FAST, primary: bool = True) -> Point:
    y = None if value is None else math.log(value)
    state = "invalid" if value is None else "ok"
    return Point(series=series, run="tonight", at="", state=state, y=y, reps=3, primary=primary, facts={})


def past(nights: Sequence[float] = LOGS, alert: str | None = None) -> Past:
    return Past(nights=tuple(nights), epoch="first", alert=alert)


def verdict(value: float | None, before: Past, again: float | None = None, primary: bool = True) -> SeriesVerdict:
    """Of one series alone, measured a second time where it asks for it."""
    pasts = {"fast": before}
    found = judge([point(value, primary=primary)], pasts)
    return (found if again is None else confirm(found, [point(again)], pasts))[0]


# The test of one night ------------------------------------------------------------------------------------------------


def test_the_test_vector_of_the_specification() -> None:
    found = verdict(94, past(), again=94)
    assert found.t == pytest.approx(8.011, abs=5e-4)
    assert found.p == pytest.approx(1.10e-6, abs=5e-9)
    assert found.value is not None
    assert found.normal is not None
    assert found.value / found.normal == pytest.approx(0.9400, abs=5e-5)
    assert found.expected is not None
    assert found.expected[0] == pytest.approx(98.35, abs=5e-3)
    assert (found.state, found.again) == (State.REGRESSION, (2, 2))
    assert line(found, ["engine_version 0.9 -> 0.10"]) == (
        "REGRESSION qwen3-moe tp2 batch16 output_tok_s 94 vs 100 (-6.0 %), 14-night range 98.8..101.3, "
        "expected 98.35..101.7, p=1e-6, confirmed 2/2; changed: engine_version 0.9 -> 0.10"
    )


def test_a_latency_is_worse_where_it_grows_and_its_line_reads_the_same_way() -> None:
    nights = [math.log(0.05) + 0.004 * (-1) ** i for i in range(14)]
    pasts = {"slow": past(nights)}
    worse, better = (judge([point(value, SLOW)], pasts)[0] for value in (0.056, 0.044))
    assert (worse.state, better.state) == (State.SUSPECT, State.IMPROVEMENT)
    assert "0.056 vs 0.05 (+12.0 %)" in line(worse)
    assert worse.t is not None
    assert worse.t > 0
    assert better.p is not None
    assert better.p < 0.001


def test_two_nights_far_from_all_others_are_no_part_of_the_baseline_and_a_third_is() -> None:
    spoilt = [*VECTOR[:11], 80.0, 82.0, 84.0]
    kept = [math.exp(y) for y in against([[math.log(v) for v in spoilt]], [0.0]).kept[0] if not math.isnan(y)]
    assert min(kept) == pytest.approx(84)
    assert len(kept) == 12


@pytest.mark.parametrize("nights", [13, 14])
@pytest.mark.parametrize(("mads", "kept"), [(7.4, True), (7.43, False)])
def test_a_night_is_left_out_from_five_standard_deviations_by_the_mad_on(nights: int, mads: float, kept: bool) -> None:
    values = [i - (nights - 1) / 2 for i in range(nights)]
    mad = {13: 3.0, 14: 3.5}[nights]
    found = against([[*values[:-1], mads * mad]], [0.0])
    assert int(found.n[0]) == (nights if kept else nights - 1)


def test_better_is_the_mirror_image_of_worse() -> None:
    worse, better = against([LOGS], [LOGS[0] + 0.02]), against([[-y for y in LOGS]], [-LOGS[0] - 0.02])
    assert better.p_better[0] == pytest.approx(worse.p[0], rel=1e-9)
    assert worse.p[0] + worse.p_better[0] == pytest.approx(1)


def entry(run: str, epoch: str, state: State | None = State.OK, value: float | None = 100) -> Entry:
    known = msgspec.structs.replace(point(value), run=run)
    said = None if state is None else SeriesVerdict(series=FAST, run=run, state=state, primary=True, epoch=epoch)
    return Entry(point=known, verdict=said, epoch=epoch)


def test_a_night_of_which_nothing_was_said_is_learning_or_was_not_measured() -> None:
    assert entry("a", "a", None).state is State.LEARNING
    assert entry("a", "a", None, value=None).state is State.INVALID


def test_runs_are_kept_that_are_good_and_of_the_last_epoch() -> None:
    before, bad = entry("old", "old"), entry("bad", "new", State.REGRESSION)
    assert kept_runs([before, entry("new", "new"), bad], []) == {"new"}
    assert kept_runs([before, entry("new", "new")], []) == {"new"}
    assert kept_runs([before], []) == {"old"}


def test_nights_that_are_all_alike_have_the_spread_of_the_floor_and_it_decides() -> None:
    alike = [math.log(100)] * 14
    assert against([alike], [math.log(100)], 0.005).spread[0] == 0.005
    assert verdict(96, past(alike)).candidate
    assert not verdict(96, Past(nights=tuple(alike), floor=0.03, epoch="first")).candidate


def test_an_effect_under_the_gate_is_no_candidate_however_sure() -> None:
    assert verdict(97.2, past()).p == pytest.approx(0.0015, abs=0.001)  # 2.9 % worse
    assert verdict(97.2, past()).state is State.OK
    assert verdict(96.9, past()).state is State.SUSPECT


@pytest.mark.parametrize(
    ("words", "least"),
    [("output_tok_s", 0.03), ("p50 ttft", 0.05), ("p95 ttft", 0.1), ("p99 tpot", 0.1), ("mean e2e", 0.05)],
)
def test_the_gates_are_those_of_the_specification_unless_the_scenario_sets_its_own(words: str, least: float) -> None:
    assert gate(words) == least
    assert gate(words, {words: 0.2}) == 0.2


def test_false_discoveries_are_limited_over_the_whole_family_and_what_is_no_test_counts_in_none() -> None:
    p = [0.001, 0.009, 0.02, 0.5, math.nan]  # limits 0.005, 0.01, 0.015, 0.02 of four tests
    assert discoveries(p, 0.02).tolist() == [True, True, False, False, False]
    assert discoveries([0.004, 0.011, 0.0149, 0.5], 0.02).tolist() == [True, True, True, False]  # by the third's limit
    assert discoveries([0.009, 0.5, 0.5, 0.5], 0.02).tolist() == [False] * 4


# States ---------------------------------------------------------------------------------------------------------------


def test_the_states_of_a_series_in_the_order_in_which_it_goes_through_them() -> None:
    assert verdict(None, past()).state is State.INVALID
    assert verdict(100, Past()).state is State.LEARNING
    assert verdict(94, past(LOGS[:7])).state is State.LEARNING
    assert verdict(94, past(LOGS[:8])).state is State.SUSPECT
    assert verdict(100, past(LOGS[:7])).state is State.LEARNING
    assert verdict(100, past(LOGS[:8])).state is State.OK
    assert verdict(100, past()).state is State.OK
    assert verdict(94, past()).candidate
    assert "1/1" not in line(verdict(94, past()))
    assert "worse in 1/2" in line(verdict(94, past(), again=99))
    assert verdict(94, past(), again=99).state is State.SUSPECT
    regression = verdict(94, past(), again=95)
    assert (regression.state, regression.alert) == (State.REGRESSION, "tonight")
    assert verdict(106, past()).state is State.IMPROVEMENT


def test_an_open_alert_needs_no_second_measurement_and_ends_when_the_series_recovers() -> None:
    open_alert = past(alert="three nights ago")
    still = verdict(95, open_alert)
    assert (still.state, still.candidate, still.alert) == (State.REGRESSION, False, "three nights ago")
    assert "failing since three nights ago" in line(still)
    assert verdict(None, open_alert).alert == "three nights ago"
    recovered = verdict(99.5, open_alert)
    assert (recovered.state, recovered.alert) == (State.OK, None)


def test_a_secondary_series_is_suspect_at_most_and_is_not_measured_again() -> None:
    found = verdict(90, past(), again=90, primary=False)
    assert (found.state, found.candidate, found.again) == (State.SUSPECT, False, None)


def test_a_candidate_whose_second_measurement_failed_is_still_to_be_measured() -> None:
    pasts = {"fast": past()}
    found = confirm(judge([point(94)], pasts), [point(None)], pasts)[0]
    assert (found.state, found.candidate) == (State.SUSPECT, True)


def test_while_a_series_learns_only_a_shock_is_a_candidate_and_a_second_one_confirms_it() -> None:
    young = past(LOGS[:3])
    assert verdict(84, young).state is State.LEARNING  # 19 % worse
    assert verdict(80, young).candidate
    assert verdict(80, young, again=81).state is State.REGRESSION
    assert verdict(80, young, again=95).state is State.SUSPECT
    assert not verdict(80, past(LOGS[:2])).candidate


def test_slow_drift_is_found_where_the_last_week_lies_below_the_first_nights() -> None:
    low = tuple(y + math.log(0.96) for y in LOGS[:7])
    pasts = {"fast": Past(reference=LOGS, recent=low), "slow": Past(reference=LOGS, recent=LOGS[:7])}
    found = {one.series.key: one for one in drift({"fast": FAST, "slow": SLOW}, pasts)}
    assert (found["fast"].found, found["slow"].found) == (True, False)
    assert found["fast"].worse == pytest.approx(0.04, abs=0.005)
    two_sided = ratio_welch([math.exp(y) for y in LOGS], [math.exp(y) for y in low]).p
    assert two_sided is not None
    assert found["fast"].p == pytest.approx(two_sided / 2)
    assert drift({"fast": FAST}, {"fast": Past(reference=LOGS, recent=low[:6])}) == []
    (better,) = drift({"fast": FAST}, {"fast": Past(reference=low * 2, recent=LOGS[:7])})
    assert (better.found, better.worse < 0) == (False, True)
    assert 0.99 < better.p <= 1


def test_what_is_known_of_a_series_grows_with_its_nights() -> None:
    """The range from the first night on, the band from the third, t and p once it has learned; none of a bad night."""
    for nights, banded, tested in (
        (1, False, False),
        (2, False, False),
        (3, True, False),
        (7, True, False),
        (8, True, True),
    ):
        found = verdict(94, past(LOGS[:nights]))
        assert (found.n, found.expected is not None) == (nights, banded)
        assert (found.t is not None, found.p is not None) == (tested, tested)
        assert found.normal is not None
        assert found.worse == pytest.approx(found.normal / 94 - 1)
    bad = verdict(None, past())
    assert (bad.worse, bad.t, bad.p, bad.value) == (None, None, None, None)
    assert (bad.n, bad.expected is not None) == (14, True)


# How often it is wrong ------------------------------------------------------------------------------------------------

SERIES, CHAINS, LENGTH = 12, 1000, 20
GATES = np.tile([0.03, 0.05], SERIES // 2)
"""Six cells, with output_tok_s and p50 ttft each."""

DROPPED = np.array([0, 2, 4])
"""The output_tok_s of three cells."""


@dataclass(frozen=True)
class World:
    """Nights in which nothing changes, [chain, night, series]: the first measurement and a second one of each night.

    The spread of nights is 1.5 % on average and lognormally spread over the series. Half of the variance is of the
    night (both measurements have it; from night to night it is correlated by 0.3), half is each measurement's own; half
    of either is common to all series. In 3 % of nights all of it is 2.5 times as wide.
    """

    first: NDArray[np.float64]
    second: NDArray[np.float64]


def world(random: np.random.Generator) -> World:
    shape = (CHAINS, WINDOW + LENGTH, SERIES)
    spread = 0.015 * np.exp(random.normal(0, 0.3, (CHAINS, 1, SERIES)) - 0.3**2 / 2)
    spread = spread * np.where(random.random((*shape[:2], 1)) < 0.03, 2.5, 1.0)

    def noise() -> NDArray[np.float64]:
        return (random.normal(size=(*shape[:2], 1)) + random.normal(size=shape)) / math.sqrt(2)

    of_night = noise()
    for i in range(1, shape[1]):
        of_night[:, i] = 0.3 * of_night[:, i - 1] + math.sqrt(1 - 0.3**2) * of_night[:, i]
    return World(*(spread * (of_night + noise()) / math.sqrt(2) for _ in range(2)))


def confirmed(nights: Any, first: Any, second: Any) -> NDArray[np.bool_]:
    """Which series of each chain are regressions tonight."""
    worse, _ = candidates(against(nights, first), WINDOW, GATES)
    return worse & still_worse(against(nights, second), WINDOW, GATES)


def rates(random: np.random.Generator, drop: float) -> tuple[float, float]:
    """The share of nights with a false alarm, and of those in which a drop is found that happens that very night."""
    made = world(random)
    nights = made.first[:, :WINDOW].transpose(0, 2, 1)
    shift = np.zeros(SERIES)
    shift[DROPPED] = -math.log(1 - drop)
    false = found = 0
    for i in range(WINDOW, WINDOW + LENGTH):
        first, second = made.first[:, i], made.second[:, i]
        alarm = confirmed(nights, first, second)
        false += int(alarm.any(axis=-1).sum())
        found += int(confirmed(nights, first + shift, second + shift)[:, DROPPED].any(axis=-1).sum())
        moved = np.concatenate([nights[..., 1:], first[..., None]], axis=-1)
        nights = np.where(alarm[..., None], nights, moved)  # a regression is no part of the baseline
    return false / (CHAINS * LENGTH), found / (CHAINS * LENGTH)


@pytest.mark.parametrize("seed", [1, 2, 3, 4, 5])
def test_one_night_in_70_is_falsely_alarmed_at_most_and_5_percent_are_found_the_same_night(seed: int) -> None:
    false, found = rates(np.random.default_rng(seed), drop=0.05)
    assert false <= 1 / 70
    assert found >= 0.78


def test_a_night_is_judged_by_the_very_lines_that_were_simulated() -> None:
    """The verdicts of made-up nights are what the arrays say."""
    made = world(np.random.default_rng(6))
    named = [
        Series(key=str(i), scenario="s", cell=str(i // 2), target="t", measure=("output_tok_s", "p50 ttft_s")[i % 2])
        for i in range(SERIES)
    ]
    turned = [-1 if series.higher_is_better else 1 for series in named]
    states = set()
    for chain in range(40):
        nights = made.first[chain, :WINDOW].T
        tonight = made.first[chain, WINDOW] + 0.05 * np.isin(np.arange(SERIES), DROPPED)
        worse, better = candidates(against(nights, tonight), WINDOW, GATES)
        pasts = {one.key: past([s * y for y in row]) for one, s, row in zip(named, turned, nights, strict=True)}
        points = [point(math.exp(s * y), one) for one, s, y in zip(named, turned, tonight, strict=True)]
        verdicts = judge(points, pasts)
        assert [one.candidate for one in verdicts] == worse.tolist()
        assert [one.state is State.IMPROVEMENT for one in verdicts] == better.tolist()
        states |= {one.state for one in verdicts}
    assert states >= {State.OK, State.SUSPECT}
