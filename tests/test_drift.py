"""The drift tests keep what they promise: false alarms at 5 % whatever neighbours share, real drifts found."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from loadgen.long.drift import LEAST, Drift, Kind, drift
from loadgen.long.intervals import Interval
from loadgen.long.trend import doubts, drifts, found_drifting, sentence
from loadgen.summary import Window

MINUTE = 60.0
Series = NDArray[np.float64]


def correlated(rng: np.random.Generator, n: int, phi: float) -> Series:
    """AR(1) noise of variance 1."""
    noise = rng.standard_normal(n + 100) * np.sqrt(1 - phi**2)
    for before, after in pairwise(range(n + 100)):
        noise[after] += phi * noise[before]
    return noise[100:]


def share(tries: int, make: Callable[[np.random.Generator], Series], kind: Kind = "level") -> float:
    """The share of series, given by their logarithms, that are called drifting at 5 %."""
    rng = np.random.default_rng(1)
    found = [drift("x", np.exp(make(rng)).tolist(), MINUTE, kind).p for _ in range(tries)]
    return sum(p is not None and p < 0.05 for p in found) / tries


@pytest.mark.parametrize(("n", "phi"), [(60, 0.0), (60, 0.3), (60, 0.5), (60, 0.7), (240, 0.8)])
def test_a_steady_series_is_called_drifting_as_often_as_is_said(n: int, phi: float) -> None:
    alarms = share(1500, lambda rng: 7 + 0.02 * correlated(rng, n, phi))
    assert 0.03 < alarms < 0.075


def test_a_regression_that_takes_every_value_for_a_new_fact_would_not_do() -> None:
    rng, alarms = np.random.default_rng(1), 0
    x = np.arange(60.0)
    for _ in range(300):
        y = correlated(rng, 60, 0.7)
        slope, level = np.polyfit(x, y, 1)
        error = np.sqrt(((y - slope * x - level) ** 2).sum() / 58 / ((x - x.mean()) ** 2).sum())
        alarms += abs(slope / error) > 2
    assert alarms > 90


def test_most_drifts_of_two_and_a_half_times_the_noise_are_found() -> None:
    ramp = np.linspace(0, 0.025, 60)
    assert share(400, lambda rng: 7 + ramp + 0.01 * correlated(rng, 60, 0.3)) > 0.8
    assert share(400, lambda rng: 7 + 2 * ramp + 0.01 * correlated(rng, 60, 0.3)) > 0.98


def test_the_interval_of_a_drift_holds_the_true_one_in_nineteen_of_twenty_tries() -> None:
    rng, held = np.random.default_rng(2), 0
    for _ in range(1000):
        one = drift("x", np.exp(7 + np.linspace(0, 0.03, 61) + 0.01 * correlated(rng, 61, 0.4)).tolist(), MINUTE)
        assert one.low is not None
        assert one.high is not None
        held += one.low < np.expm1(0.03) < one.high
    assert 0.93 < held / 1000 < 0.97


def test_a_line_without_noise_is_read_off() -> None:
    one = drift("x", [1000 * 0.999**minute for minute in range(61)], MINUTE)
    assert one.per_hour == pytest.approx(0.999**60 - 1)
    assert one.total == pytest.approx(0.999**60 - 1)
    assert one.p == 0
    assert drift("x", [5.0] * 60, MINUTE).p == 1


def test_the_unit_of_a_series_does_not_matter_and_its_reverse_drifts_the_other_way() -> None:
    rng = np.random.default_rng(3)
    values = np.exp(np.linspace(0, 0.02, 80) + 0.01 * correlated(rng, 80, 0.3))
    one, scaled, back = (drift("x", series.tolist(), MINUTE) for series in (values, values * 1e6, values[::-1]))
    assert scaled.p == pytest.approx(one.p)
    assert scaled.per_hour == pytest.approx(one.per_hour)
    assert back.p is not None
    assert back.p < 0.05
    assert back.per_hour is not None
    assert one.per_hour is not None
    assert back.per_hour * one.per_hour < 0


def test_memory_that_wanders_is_no_leak_though_a_trend_test_would_say_so() -> None:
    def walk(rng: np.random.Generator) -> Series:
        steps: Series = 20 + 0.001 * np.cumsum(rng.standard_normal(60))
        return steps

    assert 0.03 < share(1500, walk, "growth") < 0.07
    assert share(300, walk, "level") > 0.15


def test_memory_that_grows_all_the_time_is_a_leak_and_memory_that_was_taken_once_is_none() -> None:
    def p(logs: Series) -> float:
        found = drift("x", np.exp(logs).tolist(), MINUTE, "growth").p
        assert found is not None
        return found

    minutes = np.arange(60.0)
    noise = 0.0002 * np.random.default_rng(4).standard_normal(60)
    assert p(20 + 0.0005 * minutes + noise) < 0.001
    assert p(np.log(1e9 + 1e7 * (minutes // 7))) < 0.01, "an arena every seven minutes"
    assert p(20 + np.where(minutes > 10, 0.5, 0.0) + noise) > 0.2
    assert p(20 - 0.5 * np.exp(-minutes / 5) + noise) > 0.1, "a cache that fills at the beginning"


def test_a_pace_of_seconds_is_a_number_for_an_hour_too() -> None:
    rng = np.random.default_rng(5)
    one = drift("x", np.exp(np.linspace(0, 40, 60) + rng.standard_normal(60)).tolist(), 0.2)
    assert one.per_hour is not None
    assert np.isfinite(one.per_hour)


def test_too_few_values_are_no_series_and_one_that_is_missing_is_bridged() -> None:
    few = drift("x", [1.0] * (LEAST - 1), MINUTE)
    assert few.p is None
    assert few.why == f"{LEAST - 1} intervals are too few, a test needs {LEAST}"
    line: list[float | None] = [1000 * 0.999**minute for minute in range(61)]
    line[7] = None
    line[8] = 0.0  # nothing was served
    assert drift("x", line, MINUTE).per_hour == pytest.approx(0.999**60 - 1)
    half: list[float | None] = [None, 1.0] * 30
    assert drift("x", half, MINUTE).why == "30 of 60 intervals have no value"


# What is said -------------------------------------------------------------------------------------------------------


def interval(number: int, **fields: float) -> Interval:
    words = {name: fields.pop(name) for name in ("server_bytes", "gpu_bytes") if name in fields}
    return Interval(start_s=number * MINUTE, length_s=MINUTE, server=words, **fields)


def course(rate: Series, memory: Series | None = None, n: int = 62) -> list[Interval]:
    return [
        interval(i, output_tok_s=float(rate[i]), **({} if memory is None else {"server_bytes": float(memory[i])}))
        for i in range(n)
    ]


def steady(seed: int, n: int = 62) -> Series:
    found: Series = 1000 * np.exp(0.003 * correlated(np.random.default_rng(seed), n, 0.3))
    return found


def test_a_server_that_slows_is_a_doubt_with_its_pace_and_a_steady_one_is_none() -> None:
    window = Window(60, 61 * 60)
    slowing = steady(5) * 0.96 ** (np.arange(62) / 60)
    (one,) = doubts(drifts(course(slowing), window))
    assert one.code == "drift_output_tok_s"
    assert one.text.startswith("Output tok/s fell by ")
    assert "over 60 intervals" in one.text
    (found,) = drifts(course(slowing), window)
    assert found.low is not None
    assert found.high is not None
    assert found.low < -0.04 < found.high
    (calm,) = drifts(course(steady(6)), window)
    assert list(doubts([calm])) == []
    assert sentence(calm, False).startswith("output tok/s: steady (")


def test_what_lies_outside_the_window_or_was_cut_short_is_not_tested() -> None:
    rate = steady(7)
    rate[0] = 10.0  # warm-up
    cut = [*course(rate), Interval(start_s=62 * MINUTE, length_s=0.5, output_tok_s=9e9)]
    (found,) = drifts(cut, Window(60, 1e6))
    assert found.n == 61
    assert list(doubts([found])) == []


def test_a_drift_that_is_sure_and_too_small_to_matter_is_no_doubt() -> None:
    (found,) = drifts(course(1000 * 0.995 ** (np.arange(62) / 60)), Window(60, 61 * 60))
    assert found.p == 0
    assert found_drifting([found]) == []


def test_a_leak_is_a_doubt_with_its_bytes_and_memory_that_shrinks_is_none() -> None:
    window, minutes = Window(60, 61 * 60), np.arange(62)
    noise = np.random.default_rng(8).normal(0, 1e5, 62)
    (one,) = doubts(drifts(course(steady(9), 1e9 + 1e6 * minutes + noise), window))
    assert one.code == "memory_growth"
    assert "grew by" in one.text
    assert " MiB) over 60 intervals" in one.text
    assert list(doubts(drifts(course(steady(9), 1e9 - 1e6 * minutes + noise), window))) == []


def test_of_several_series_of_a_repeat_one_in_twenty_repeats_raises_a_false_alarm_not_one_a_series() -> None:
    close = [Drift(what=what, n=60, per_hour=0.5, total=0.5, low=0.1, high=0.9, p=0.03) for what in ("a_bytes",) * 3]
    assert found_drifting(close) == []
    assert len(found_drifting(close[:1])) == 1
