"""Searches as pure functions: verdicts from either side, the path, and what both find of a simulated server."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from queue_simulation import Queue

from loadgen.judge import asked, limits
from loadgen.scenario import Objective, parse_objective
from loadgen.search.path import CLIENT_WINDOWS, Bracket, Goal, Stop, bracket, next_load
from loadgen.search.sentence import answer, doubts, stopped
from loadgen.search.verdict import Trial, Verdict, allowed_misses, decided, needed, share_interval, trial
from loadgen.statistics import certified_rank
from loadgen.summary import Context, Doubt, Misses, Summary

MET, MISSED, UNDECIDED, INVALID = Verdict.MET, Verdict.MISSED, Verdict.UNDECIDED, Verdict.INVALID

OBJECTIVES = ("p99 ttft < 0.5 s", "error_rate < 1 %")
SERVER = Queue(slots=16, step_s=0.02, tokens=10)
TRUE_RATE = 77.8
"""Where p99 TTFT of `SERVER` (80 requests a second) is 1 s, by one run of 3000 s at each of nine rates from 56 on."""


def goal(**words: object) -> Goal:
    known = {"find": "max_rate", "start": 10.0, "least": 0.1, "most": None, "within": 0.05, "probes": 12}
    return Goal(**{**known, **words})


def context(objectives: Sequence[Objective]) -> Context:
    return Context(limits=limits(objectives), asked=asked(objectives))


def window(missed: int = 0, n: int = 1000, *, rate: float = 100.0, ended: float | None = None, **fields) -> Summary:
    """A window in which so many of n requests missed the first of `OBJECTIVES`, and none failed."""
    quiet = Queue(slots=1, tokens=1, window_s=1.0).at_rate(1.0, 1, Context())
    audit = msgspec.structs.replace(quiet.audit, achieved_rps=rate)
    misses = {OBJECTIVES[0]: Misses(n, missed, n), "error_rate": Misses(n, 0, n)}
    known = {"audit": audit, "misses": misses, "request_rps": rate if ended is None else ended, "in_flight": 5.0}
    long = msgspec.structs.replace(quiet.window, w1=quiet.window.w0 + n / rate)
    return msgspec.structs.replace(quiet, **{"window": long, "state": "ok", "invalid": (), **known, **fields})


def judged(*windows: Summary) -> Trial:
    return trial(100.0, [parse_objective(text) for text in OBJECTIVES], windows)


def late() -> Summary:
    return window(state="invalid", invalid=(Doubt("late", "The client sent late."),))


# One load -------------------------------------------------------------------------------------------------------------


def test_a_certificate_is_that_of_mlperfs_early_stopping() -> None:
    for n, p in itertools.product((64, 130, 459, 662, 663, 2000, 6636), (0.9, 0.95, 0.99)):
        t = certified_rank(n, p)
        if t is not None:  # t values over the limit are one too many for n, t - 1 are not
            assert decided(t - 1, n, round(1 - p, 2)) is MET
            assert decided(t + 1, n, round(1 - p, 2)) is not MET
    assert (needed(0.01), needed(0.05), needed(0.1)) == (459, 90, 44)
    assert (decided(0, 459, 0.01), decided(0, 458, 0.01)) == (MET, UNDECIDED)


@given(st.integers(1, 3000), st.floats(0, 1), st.sampled_from([0.01, 0.05, 0.1, 0.5]))
def test_no_count_is_both_met_and_missed_and_more_misses_are_never_better(n: int, part: float, allowed: float) -> None:
    order = [MET, UNDECIDED, MISSED]
    found = [order.index(decided(bad, n, allowed)) for bad in sorted({0, int(part * n), n})]
    assert found == sorted(found)
    assert decided(n, n, allowed) is not MET


def test_a_share_has_clopper_and_pearsons_interval() -> None:
    assert share_interval(0, 459) == pytest.approx((0, 0.008004), abs=1e-5)
    assert share_interval(10, 100) == pytest.approx((0.049005, 0.176223), abs=1e-5)
    assert share_interval(5, 5)[1] == 1


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ("p99 ttft < 0.5 s", 0.01),
        ("p99.9 e2e < 9 s", 0.001),
        ("p50 decode_tok_s > 20", 0.5),
        ("max stall < 1 s", 0.0),
        ("error_rate < 1 %", 0.01),
        ("goodput > 95 %", 0.05),
    ],
)
def test_every_objective_is_a_share_that_may_miss_it(text: str, allowed: float) -> None:
    assert allowed_misses(parse_objective(text)) == pytest.approx(allowed)


def test_few_requests_without_a_miss_lean_to_met_and_many_certify_it() -> None:
    few, many = judged(window(n=100)), judged(window(n=1000))
    assert (few.verdict, few.leans, many.verdict) == (UNDECIDED, True, MET)
    assert "459 are needed" in few.why


def test_windows_of_one_load_count_together() -> None:
    assert judged(window(n=250), window(n=250)).verdict is MET
    assert judged(window(30, 500)).verdict is MISSED


def test_misses_in_a_row_decide_less_than_scattered_ones_and_a_clean_window_does_not_outweigh_them() -> None:
    def of(missed: int, n_eff: float) -> Summary:
        return window(misses={OBJECTIVES[0]: Misses(500, missed, n_eff), "error_rate": Misses(500, 0, 500)}, n=500)

    row, scattered, clean = of(20, 25.0), of(20, 500.0), of(0, 500.0)
    assert (judged(row).verdict, judged(row).leans, judged(scattered).verdict) == (UNDECIDED, False, MISSED)
    both = judged(row, clean)
    assert (both.verdict, both.leans) == (UNDECIDED, False)
    assert both.objectives[0].n_eff == pytest.approx(50)
    assert both.objectives[0].share == pytest.approx(0.02)
    low, high = both.objectives[0].share_interval or (1, 0)
    assert low < 0.02 < high


def test_a_late_client_answers_nothing_and_a_cap_that_drops_is_the_servers_doing() -> None:
    assert (judged(late()).verdict, judged(late()).leans) == (INVALID, None)
    assert judged(late(), window()).verdict is MET
    dropped = window(state="invalid", invalid=(Doubt("sends", "Dropped."),), status={"ok": 900, "dropped": 100})
    assert judged(dropped).verdict is MISSED
    assert "max_in_flight" in judged(dropped).why


def test_replies_in_step_forbid_rates_and_so_a_closed_loop_but_are_what_a_growing_queue_does() -> None:
    wave = {"state": "invalid", "invalid": (Doubt("one_phase", "Requests ran in step."),)}
    assert judged(window(**wave)).verdict is MET
    closed = judged(window(**wave, audit=msgspec.structs.replace(window().audit, achieved_rps=None)))
    assert (closed.verdict, closed.blind) == (INVALID, "window")
    _, trials, _ = path(goal(), lambda load: MET if load < 30 else INVALID)
    waves = [*trials[:-1], msgspec.structs.replace(trials[-1], blind="window")]
    assert next_load(goal(), waves) is Stop.WINDOW
    assert answer(goal(), waves).endswith("; at 40 no window can be trusted")


def test_a_server_that_falls_behind_misses_whatever_its_latency_is() -> None:
    behind = judged(window(rate=100, ended=90))
    assert behind.verdict is MISSED
    assert "fell behind: it ended 900 of 1000" in behind.why
    assert judged(window(rate=100, ended=99)).verdict is MET


def test_a_server_that_answers_nobody_misses() -> None:
    dead = judged(window(state="failed", ok=0, failed=1000))
    assert (dead.verdict, dead.why) == (MISSED, "no request was answered")


def test_where_no_connection_can_be_made_nothing_is_said_of_the_load() -> None:
    gone = judged(window(state="failed", ok=0, failed=1000, status={"connect_error": 1000}))
    assert (gone.verdict, gone.leans, gone.blind) == (INVALID, None, "gone")
    lost = [known(10, MET), msgspec.structs.replace(gone, load=20, windows=CLIENT_WINDOWS)]
    assert next_load(goal(), lost) is Stop.GONE
    assert answer(goal(), lost) == "it meets the objectives up to 10 requests/s; at 20 nobody listened any more"


# The path -------------------------------------------------------------------------------------------------------------


def known(load: float, verdict: Verdict, windows: int = 1, leans: bool | None = None) -> Trial:
    lean = {MET: True, MISSED: False, INVALID: None}.get(verdict, leans)
    valid = 0 if verdict is INVALID else windows
    blind: Literal["client"] | None = "client" if verdict is INVALID else None
    one = Trial(load=load, windows=windows, valid=valid, objectives=(), verdict=verdict, leans=lean, why="so it was")
    return msgspec.structs.replace(one, blind=blind)


def path(goal: Goal, verdict: Callable[[float], Verdict]) -> tuple[list[float], list[Trial], Stop]:
    """Loads in the order in which they are tried, of a server that always says the same of one."""
    tried: dict[float, int] = {}
    order = []
    while True:
        trials = [known(load, verdict(load), windows, True) for load, windows in tried.items()]
        found = next_load(goal, trials)
        if isinstance(found, Stop):
            return order, trials, found
        order.append(found)
        tried[found] = tried.get(found, 0) + 1


def test_a_search_doubles_then_bisects_then_makes_sure_of_what_misses() -> None:
    order, trials, stop = path(goal(start=1.0, probes=20), lambda load: MET if load <= 11.5 else MISSED)
    assert order == [1, 2, 4, 8, 16, 11.3, 13.4, 12.3, 11.8, 11.8]
    assert (stop, bracket(trials)) == (Stop.NARROW, Bracket(met=11.3, missed=11.8, holds=11.3, blocks=11.8))


def test_loads_in_flight_are_whole_and_the_bracket_may_be_two_neighbours() -> None:
    order, trials, stop = path(goal(find="max_concurrency", start=1.0, probes=20), lambda n: MET if n <= 5 else MISSED)
    assert order == [1, 2, 4, 8, 6, 5, 6]
    assert (stop, bracket(trials).met, bracket(trials).missed) == (Stop.NARROW, 5, 6)


@given(st.floats(0.5, 5000), st.sampled_from([0.02, 0.05, 0.1]))
def test_the_truth_lies_in_the_bracket_and_the_bracket_is_narrow(truth: float, within: float) -> None:
    _, trials, stop = path(goal(start=1.0, within=within, probes=60), lambda load: MET if load <= truth else MISSED)
    found = bracket(trials)
    assert stop is Stop.NARROW
    assert found.met is not None
    assert found.missed is not None
    assert found.met <= truth < found.missed <= found.met * (1 + within) * 1.0001


def test_no_more_probes_are_used_than_there_are() -> None:
    order, trials, stop = path(goal(probes=5), lambda load: MET if load <= 1000 else MISSED)
    assert (len(order), stop) == (5, Stop.PROBES)
    assert bracket(trials) == Bracket(met=160, missed=None, holds=160, blocks=None)


def test_the_most_that_may_be_tried_is_tried_and_no_more() -> None:
    order, _, stop = path(goal(most=50.0), lambda _: MET)
    assert (order, stop) == ([10, 20, 40, 50], Stop.MOST)


def test_a_start_that_misses_is_measured_again_before_the_search_goes_down() -> None:
    order, _, stop = path(goal(start=8.0), lambda load: MET if load <= 3 else MISSED)
    assert order[:4] == [8, 8, 4, 2]
    assert stop is Stop.NARROW
    order, trials, stop = path(goal(start=8.0, least=1.0), lambda _: MISSED)
    assert (order, stop) == ([8, 8, 4, 2, 1], Stop.LEAST)
    assert answer(goal(), trials) == "it misses the objectives at every load that was tried, down to 1 requests/s"


def test_a_client_that_is_late_again_and_again_ends_the_search_and_is_named() -> None:
    order, trials, stop = path(goal(), lambda load: MET if load < 30 else INVALID)
    assert (order, stop) == ([10, 20, *[40] * CLIENT_WINDOWS], Stop.CLIENT)
    assert "at 40 the client itself was the limit" in answer(goal(), trials)
    assert stopped(goal(), trials, stop) == "the client is the limit, 3 times at 40: so it was"


def test_a_client_that_was_late_once_is_forgiven() -> None:
    assert next_load(goal(), [known(10, MET), known(20, INVALID)]) == 20


def test_an_undecided_end_gets_more_windows_and_what_they_cannot_decide_is_said() -> None:
    order, trials, stop = path(goal(probes=30), lambda load: MET if load < 40 else UNDECIDED if load < 44 else MISSED)
    assert stop is Stop.UNDECIDED
    assert max(order.count(load) for load in order) == 4
    found = bracket(trials)
    assert found.met is not None
    assert found.holds is not None
    assert found.met < 40 <= found.holds < 44 <= (found.missed or 0)
    assert "(certified at" in answer(goal(), trials)
    assert {doubt.code for doubt in doubts(goal(), trials, 60, [])} == {"uncertified"}


def test_a_load_that_meets_above_one_that_misses_is_a_doubt() -> None:
    trials = [known(10, MET), known(20, MISSED, 2), known(40, MET)]
    assert [doubt.code for doubt in doubts(goal(), trials, 60, [])] == ["not_rising"]


def test_a_load_that_is_missed_for_what_no_objective_asks_says_for_what() -> None:
    """Else a cap of the client's own that is set too low passes for the most that a server can take."""
    dropped = window(state="invalid", invalid=(Doubt("sends", "Dropped."),), status={"ok": 900, "dropped": 100})
    top = msgspec.structs.replace(judged(dropped), load=20, windows=2)
    (doubt,) = doubts(goal(), [known(10, MET), top], 60, [])
    assert doubt.text == (
        "At 20 no objective is surely missed by itself: requests were dropped at load.max_in_flight, because so many "
        "were unanswered."
    )
    slow = msgspec.structs.replace(judged(window(30, 500)), load=20, windows=2)
    assert list(doubts(goal(), [known(10, MET), slow], 60, [])) == []


def test_a_window_too_short_to_see_a_queue_grow_is_a_doubt() -> None:
    trials = [known(10, MET), known(10.4, MISSED, 2)]
    assert [doubt.code for doubt in doubts(goal(), trials, 30, [("p99 ttft < 2 s", 2.0)])] == ["short_for_limit"]
    assert list(doubts(goal(), trials, 60, [("p99 ttft < 2 s", 2.0)])) == []


# A simulated server ---------------------------------------------------------------------------------------------------


def searched(queue: Queue, goal: Goal, seed: int, asked_for: Sequence[str] = OBJECTIVES) -> list[Trial]:
    """A whole search of a simulated server by the production functions."""
    objectives = [parse_objective(text) for text in asked_for]
    windows: dict[float, list[Summary]] = {}
    for number in itertools.count():
        trials = [trial(load, objectives, found) for load, found in windows.items()]
        load = next_load(goal, trials)
        if isinstance(load, Stop):
            return trials
        measure = queue.at_concurrency if goal.whole else queue.at_rate
        summary = measure(int(load) if goal.whole else load, 1000 * seed + number, context(objectives))
        windows.setdefault(load, []).append(summary)
    raise AssertionError


def test_the_true_maximum_rate_is_found_within_5_percent_in_12_probes() -> None:
    found = [searched(SERVER, goal(), seed, ("p99 ttft < 1 s", "error_rate < 1 %")) for seed in range(8)]
    assert all(sum(one.windows for one in trials) <= 12 for trials in found)
    close = [abs((bracket(trials).met or 0) / TRUE_RATE - 1) <= 0.05 for trials in found]
    assert sum(close) >= 7


def test_the_true_maximum_concurrency_is_the_number_of_slots() -> None:
    queue = Queue(slots=12, window_s=10)
    trials = searched(queue, goal(find="max_concurrency", start=1.0), 1)
    # A slot is free for the next of more clients than slots only after a whole reply: 0.1 s, four of them for 0.5 s.
    assert (bracket(trials).met or 0) <= 5 * 12 < (bracket(trials).missed or 0)
    assert (bracket(trials).missed or 0) <= 1.1 * 5 * 12
