"""Sweeps as pure functions: the steps from idle to saturation, the knee and its interval."""

from __future__ import annotations

import itertools

import msgspec
import pytest
from queue_simulation import Queue

from loadgen.search.knee import LEAST_POINTS, Knee, Point, knee
from loadgen.search.path import Stop
from loadgen.search.sentence import swept_sentence
from loadgen.search.sweep import Course, Leg, maximum_of, next_leg, points, swept
from loadgen.summarise import summarise
from loadgen.summary import Context, Doubt, Summary, Window

COURSE = Course(steps=10, most=None, latency="p50 ttft_s", seed=1)


def whole_sweep(queue: Queue, seed: int, course: Course = COURSE) -> list[Leg]:
    """Every step, of a simulated server."""
    legs: list[Leg] = []
    for number in itertools.count():
        found = next_leg(course, legs)
        if isinstance(found, Stop):
            return legs
        word, load = found
        legs.append(Leg(word, load, _measured(queue, word, load, 1000 * seed + number)))
    raise AssertionError


def _measured(queue: Queue, word: str, load: float, seed: int) -> Summary:
    context = Context(concurrency=int(load)) if word == "concurrency" else Context()
    return queue.at_rate(load, seed, context) if word == "rate_rps" else queue.at_concurrency(int(load), seed, context)


def test_a_sweep_goes_from_idle_to_beyond_the_measured_maximum_in_even_steps() -> None:
    queue = Queue(window_s=10)
    legs = whole_sweep(queue, 1)
    closed = [leg.load for leg in legs if leg.word == "concurrency"]
    rates = [leg.load for leg in legs if leg.word == "rate_rps"]
    assert closed == [1, 4, 16, 64]
    maximum = maximum_of(legs)
    assert maximum == pytest.approx(queue.capacity_rps, rel=0.02)
    assert rates[:12] == pytest.approx([maximum * step / 10 for step in range(1, 13)], rel=0.01)
    assert len(rates) == 14
    assert len(legs) <= COURSE.probes


def test_the_knee_is_within_10_percent_of_the_capacity_and_inside_its_interval() -> None:
    queue, found = Queue(), []
    for seed in range(4):
        one = swept(COURSE, whole_sweep(queue, seed)).knee
        assert one is not None
        assert one.low <= one.rate <= one.high
        found.append(one)
    close = [abs(one.rate / queue.capacity_rps - 1) <= 0.1 for one in found]
    assert sum(close) >= 3
    middle = sorted(one.rate for one in found)[2]
    assert sum(one.low <= middle <= one.high for one in found) >= 3


def test_latency_that_does_not_rise_has_no_knee_and_the_sentence_says_so() -> None:
    flat = [Point(rate, 0.05, 0.001) for rate in range(1, 13)]
    assert knee(flat, 1) == "latency does not rise within the sweep"
    falling = [Point(rate, 1 / rate, 0.001) for rate in range(1, 13)]
    assert knee(falling, 1) == "latency does not rise within the sweep"


def test_two_lines_that_meet_are_found_where_they_meet() -> None:
    bent = [Point(rate, 0.05 + max(0, rate - 7.5) * 0.5, 1e-6) for rate in range(1, 13)]
    found = knee(bent, 1)
    assert isinstance(found, Knee)
    assert found.rate == pytest.approx(7.5, abs=0.1)
    assert found.latency == pytest.approx(0.05, rel=0.2)


def test_too_few_steps_are_no_sweep() -> None:
    assert isinstance(knee([Point(rate, rate, 0.1) for rate in range(1, LEAST_POINTS)], 1), str)


def test_the_same_seed_gives_the_same_interval() -> None:
    bent = [Point(rate, 0.05 + max(0, rate - 7.5) * 0.5, 0.01) for rate in range(1, 13)]
    assert knee(bent, 3) == knee(bent[::-1], 3) != knee(bent, 4)


def test_a_step_that_the_client_was_late_in_is_no_point_of_the_knee() -> None:
    legs = whole_sweep(Queue(window_s=5), 1)
    late = [Leg(one.word, one.load, _invalid(one.summary)) if one.load == legs[-1].load else one for one in legs]
    assert len(list(points(COURSE, late))) == len(list(points(COURSE, legs))) - 1


def test_a_step_that_the_client_was_late_in_is_measured_once_more_and_three_of_them_at_most() -> None:
    legs = whole_sweep(Queue(window_s=3), 1)[:6]
    late = Leg("rate_rps", legs[-1].load, _invalid(legs[-1].summary))
    assert next_leg(COURSE, [*legs[:-1], late]) == ("rate_rps", late.load)
    assert next_leg(COURSE, [*legs[:-1], late, late]) != ("rate_rps", late.load)
    slow = Leg("concurrency", 1, legs[0].summary)
    assert next_leg(COURSE, [Leg("concurrency", 1, _invalid(legs[0].summary)), slow]) == ("concurrency", 4)
    thrice = [leg for leg in legs[:3] for _ in (1, 2)]
    assert next_leg(COURSE, [*thrice, *legs[3:-1], late]) != ("rate_rps", late.load)


def test_a_server_that_answers_nobody_has_no_maximum() -> None:
    dead = [Leg("concurrency", 1, _dead())]
    assert next_leg(COURSE, dead) is Stop.LEAST
    assert "no closed loop was answered" in swept_sentence(COURSE, swept(COURSE, dead))


def test_closed_loops_never_have_more_in_flight_than_is_allowed() -> None:
    legs = whole_sweep(Queue(slots=64, window_s=3), 1, Course(steps=4, most=10, latency="p50 ttft_s", seed=1))
    assert [leg.load for leg in legs if leg.word == "concurrency"] == [1, 4, 10]


def _invalid(summary: Summary | None) -> Summary:
    assert summary is not None
    return msgspec.structs.replace(summary, state="invalid", invalid=(Doubt("late", "The client sent late."),))


def _dead() -> Summary:
    return summarise([], Window(1, 2))
