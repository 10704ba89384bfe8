"""Objectives judged: ticks, crosses, and what cannot be known."""

from __future__ import annotations

import msgspec
import pytest
from test_summarise import failure, reply

from loadgen.judge import Judgement, judge, limits
from loadgen.summarise import summarise
from loadgen.summary import Summary, Window


class Asked(msgspec.Struct, frozen=True):
    """An objective as a scenario has it."""

    statistic: str | None
    metric: str
    op: str
    value: float
    text: str = "as asked"


WINDOW = Window(10, 40)


def repeat(ttft_ms: float = 50, count: int = 400, failed: int = 0) -> Summary:
    records = [reply(10 + i / 100, (int(ttft_ms * 1000) + i, 2_000_000)) for i in range(count)]
    return summarise([*records, *(failure() for _ in range(failed))], WINDOW)


def one(asked: Asked, *repeats: Summary | None) -> Judgement:
    (found,) = judge([asked], repeats)
    return found


def test_an_objective_is_judged_by_the_mean_over_the_repeats():
    asked = Asked("p50", "ttft", "<", 0.0603)
    found = one(asked, repeat(50), repeat(70))
    assert found.met is True
    assert found.value == pytest.approx(0.060199)
    assert found.why == "mean of 2 repeats"
    assert one(asked, repeat(50), repeat(71)).met is False


@pytest.mark.parametrize(
    ("op", "limit", "met"), [("<", 0.02, False), ("<=", 0.02, True), (">", 0.02, False), (">=", 0.02, True)]
)
def test_a_limit_includes_itself_only_where_it_says_so(op, limit, met):
    assert one(Asked(None, "error_rate", op, limit), repeat(count=98, failed=2)).met is met


def test_a_rate_of_the_window_is_judged_without_a_statistic():
    found = one(Asked(None, "output_tok_s", ">", 26), repeat())
    assert (found.met, found.why) == (True, "one repeat")
    assert found.value == pytest.approx(800 / 30)


def test_a_percentile_that_is_kept_with_certainty_says_so():
    certified = one(Asked("p90", "ttft", "<", 0.2), repeat(count=400))
    assert certified.met
    assert "p90 is at most" not in certified.why  # neighbours are alike here, which leaves too little to certify
    records = [reply(10 + i / 100, (50_000 + i * 7919 % 997, 2_000_000)) for i in range(700)]
    found = one(Asked("p90", "ttft", "<", 0.2), summarise(records, WINDOW))
    assert found.why.startswith("one repeat; p90 is at most 0.0509")
    assert found.why.endswith("with 99 % confidence in each")


def test_too_few_samples_are_a_tick_only_if_the_largest_is_within_the_limit():
    found = one(Asked("p99", "ttft", "<", 0.5), repeat(count=12), repeat(count=20))
    assert found.met is True
    assert found.value == pytest.approx(0.050019)
    assert found.why == "too few samples: n = 12, p99 needs 381; judged by the largest value"


def test_too_few_samples_are_a_cross_only_if_even_the_smallest_is_beyond_the_limit():
    found = one(Asked("p99", "ttft", "<", 0.04), repeat(count=12))
    assert (found.met, found.value) == (False, 0.05)


def test_too_few_samples_on_both_sides_of_the_limit_are_neither():
    found = one(Asked("p99", "ttft", "<", 0.050005), repeat(count=12))
    assert (found.met, found.value, found.mark) == (None, None, "?")
    assert found.why == "too few samples: n = 12, p99 needs 381"


def test_a_lower_limit_is_judged_by_the_smallest_of_few():
    found = one(Asked("p90", "request_tok_s", ">", 0.9), repeat(count=12))
    assert (found.met, found.value) == (True, pytest.approx(1.0))


def test_an_invalid_repeat_leaves_nothing_to_judge():
    late = summarise([reply(t_sched=9.0) for _ in range(400)], WINDOW)
    found = one(Asked(None, "error_rate", "<", 0.01), repeat(), late)
    assert (found.met, found.why) == (None, "a repeat is invalid")


def test_a_missing_repeat_is_left_out_and_none_at_all_is_not_known():
    assert one(Asked(None, "error_rate", "<", 0.01), None, repeat()).met is True
    assert one(Asked(None, "error_rate", "<", 0.01), None).why == "no repeat was measured"


def test_whole_failure_misses_the_error_rate_and_has_no_latency_to_judge():
    dead = summarise([failure()], WINDOW)
    assert one(Asked(None, "error_rate", "<", 0.01), dead).mark == "✗"
    assert one(Asked("p99", "ttft", "<", 1), dead).why == "a repeat has no TTFT"


def test_goodput_asks_of_each_request_the_loosest_limit_of_its_metric():
    asked = [
        Asked("p50", "ttft", "<", 0.2),
        Asked("p99", "ttft", "<", 0.5),
        Asked("p50", "decode_tok_s", ">", 20),
        Asked("p50", "e2e", ">", 1),
        Asked(None, "output_tok_s", ">", 100),
    ]
    assert limits(asked) == {"ttft_s": 0.5, "decode_tok_s": 20}
