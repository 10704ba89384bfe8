"""Records in, a summary out: every count, rate and distribution against what was put in."""

from __future__ import annotations

import json
import math
import random
import statistics

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadgen.metrics import METRICS, Measure, measure, tpot
from loadgen.record import Record
from loadgen.summarise import summarise
from loadgen.summary import Context, Distribution, Limit, Misses, Summary, Window


def reply(send: float = 10.0, chunks: tuple[int, ...] = (50_000, 60_000, 70_000), **fields: object) -> Record:
    """An ok reply with one token a chunk, sent on time."""
    first, last = chunks[0] / 1e6, chunks[-1] / 1e6
    known = {
        "seq": 0,
        "session": 0,
        "phase": "measure",
        "status": "ok",
        "t_sched": send,
        "t_send": send,
        "t_first": send + first,
        "t_last": send + last,
        "t_end": send + last + 0.001,
        "ttft_s": first,
        "e2e_s": last,
        "tpot_s": tpot(first, last, len(chunks)),
        "chunk_us": list(chunks),
        "in_tok": 7,
        "out_tok": len(chunks),
        "tok_source": "usage",
        "clock": "kernel",
        "finish": "length",
    }
    return Record(**{**known, **fields})


def failure(status: str = "reset", **fields: object) -> Record:
    known = {"seq": 0, "session": 0, "phase": "measure", "status": status, "t_sched": 10.0, "t_send": 10.0}
    return Record(**{**known, "t_end": 10.5, **fields})


WINDOW = Window(10, 40)


# Rates of the window --------------------------------------------------------------------------------------------------


def test_tokens_count_by_their_arrival_inside_the_window_wherever_the_request_began_or_ended():
    records = [
        reply(9.9, (50_000, 150_000, 250_000), phase="warmup"),  # two of three arrive in the window
        reply(20.0),  # all three
        reply(39.9, (50_000, 150_000, 250_000)),  # one, the others in the drain
    ]
    assert summarise(records, WINDOW).output_tok_s == pytest.approx(6 / 30)


def test_completions_count_by_the_end_of_the_request_inside_the_window_whatever_its_phase():
    records = [reply(9.95, phase="warmup"), reply(9.0, phase="warmup"), reply(20.0), reply(39.99)]
    assert summarise(records, WINDOW).request_rps == pytest.approx(2 / 30)


def test_the_last_token_of_a_window_that_ends_with_it_is_inside():
    send, last = 1 / 3, 123_457
    record = reply(send, (100_000, last))
    window = Window(0, send + last / 1e6 - 4e-7)  # the stamp was rounded up to whole microseconds
    assert summarise([record], window).output_tok_s == pytest.approx(2 / window.length_s)


def test_prompt_tokens_count_when_the_first_token_arrives():
    records = [reply(9.9, (200_000, 300_000), phase="warmup", in_tok=100), reply(39.99, in_tok=1000)]
    summary = summarise(records, WINDOW)
    assert summary.output_tok_s == pytest.approx(2 / 30)
    assert summary.total_tok_s == pytest.approx(102 / 30)


def test_tokens_of_a_chunk_weigh_as_the_server_says():
    record = reply(9.9, (50_000, 150_000), phase="warmup", chunk_tok=[1, 4], out_tok=5)
    assert summarise([record], WINDOW).output_tok_s == pytest.approx(4 / 30)


def test_usage_counts_more_tokens_than_chunks_and_they_are_spread_evenly():
    record = reply(9.9, (50_000, 150_000), phase="warmup", out_tok=6)
    assert summarise([record], WINDOW).output_tok_s == pytest.approx(3 / 30)


def test_failed_requests_give_no_throughput_but_their_tokens_are_counted():
    records = [reply(), reply(20.0, status="truncated"), failure(chunk_us=[1, 2], chunk_tok=[1, 3])]
    summary = summarise(records, WINDOW)
    assert summary.output_tok_s == pytest.approx(3 / 30)
    assert summary.failed_tok == 3 + 4


def test_a_reply_whose_tokens_nobody_counted_leaves_no_token_rate():
    summary = summarise([reply(), reply(out_tok=None, tok_source=None)], WINDOW)
    assert summary.output_tok_s is None
    assert summary.total_tok_s is None
    assert summary.request_rps == pytest.approx(2 / 30)


def test_a_prompt_that_the_server_did_not_count_leaves_no_total_rate():
    summary = summarise([reply(), reply(in_tok=None)], WINDOW)
    assert summary.total_tok_s is None
    assert summary.output_tok_s == pytest.approx(6 / 30)


def test_requests_in_flight_are_averaged_over_the_window():
    records = [reply(5.0, t_end=25.0, phase="warmup"), reply(30.0, t_end=50.0), failure(t_send=10.0, t_end=13.0)]
    assert summarise(records, WINDOW).in_flight == pytest.approx((15 + 10 + 3) / 30)


def test_the_error_rate_is_that_of_the_measured_requests_dropped_ones_included():
    records = [reply(), reply(), failure("timeout"), failure("dropped", t_send=None), failure("reset", phase="warmup")]
    summary = summarise(records, WINDOW)
    assert summary.error_rate == 0.5
    assert (summary.requests, summary.sent, summary.ok, summary.failed) == (4, 3, 2, 2)
    assert summary.status == {"ok": 2, "timeout": 1, "dropped": 1}
    assert summary.warmup_status == {"reset": 1}


def test_goodput_counts_requests_within_every_limit_and_failures_as_misses():
    context = Context(limits={"ttft_s": 0.06, "decode_tok_s": 50})
    slow_start, slow_decode = reply(chunks=(70_000, 80_000)), reply(chunks=(50_000, 90_000))
    single = reply(chunks=(50_000,))  # no TPOT, so no decoding speed to miss
    summary = summarise([reply(), single, slow_start, slow_decode, failure()], WINDOW, context)
    assert summary.goodput_rps == pytest.approx(2 / 30)


def test_goodput_is_a_share_of_all_measured_requests_failures_and_drops_among_them():
    fast, slow = reply(), reply(chunks=(900_000, 960_000))
    dropped = failure("dropped", t_send=None, t_end=None)
    summary = summarise([fast, fast, slow, failure(), dropped], WINDOW, Context(limits={"ttft_s": 0.5}))
    assert summary.goodput == pytest.approx(2 / 5)
    assert summary.misses["goodput"] == Misses(5, 3, summary.misses["goodput"].n_eff)


def test_goodput_counts_what_the_drain_ended_too():
    after = reply(39.9, (200_000, 300_000))
    assert summarise([after], WINDOW, Context(limits={"ttft_s": 0.5})).goodput == 1
    assert summarise([after], WINDOW, Context(limits={"ttft_s": 0.5})).goodput_rps == 0


def test_misses_are_counted_by_objective_among_replies_that_have_a_value():
    asked = (Limit("p99 ttft < 0.5 s", "ttft_s", 0.5), Limit("p50 decode_tok_s > 20", "decode_tok_s", 20))
    replies = [reply(chunks=(100_000, 200_000)), reply(chunks=(600_000, 620_000)), reply(chunks=(100_000,), out_tok=1)]
    summary = summarise([*replies, failure()], WINDOW, Context(asked=asked))
    found = {text: (one.n, one.missed) for text, one in summary.misses.items()}
    assert found == {"p99 ttft < 0.5 s": (3, 1), "p50 decode_tok_s > 20": (2, 1), "error_rate": (4, 1)}


def test_misses_that_come_in_a_row_are_worth_less_than_scattered_ones():
    def misses(slow):
        replies = [reply(10 + i / 100, (600_000 if i in slow else 100_000,), out_tok=1) for i in range(1000)]
        return summarise(replies, WINDOW, Context(asked=(Limit("x", "ttft_s", 0.5),))).misses["x"]

    together, scattered = misses(range(500, 540)), misses(range(0, 1000, 25))
    assert together.missed == scattered.missed == 40
    assert together.n_eff < 100 < 900 < scattered.n_eff


def test_without_limits_there_is_no_goodput():
    assert summarise([reply()], WINDOW).goodput_rps is None
    assert summarise([reply()], WINDOW).goodput is None


def test_a_limit_that_whole_replies_cannot_show_leaves_no_goodput():
    assert summarise([reply()], WINDOW, Context(stream=False, limits={"ttft_s": 1})).goodput_rps is None
    assert summarise([reply()], WINDOW, Context(stream=False, limits={"e2e_s": 1})).goodput_rps == pytest.approx(1 / 30)


# Distributions --------------------------------------------------------------------------------------------------------


def many(count: int) -> list[Record]:
    """Replies with TTFT 1, 2, 3 ... ms, ending in an order of their own."""
    records = [reply(10 + i / count, (1000 * (i + 1), 1000 * (i + 1) + 10_000)) for i in range(count)]
    return sorted(records, key=lambda record: record.e2e_s * 7919 % 1)


def test_percentiles_are_nearest_rank_of_the_raw_values():
    ttft = summarise(many(400), WINDOW).ttft_s
    assert (ttft.n, ttft.min, ttft.max) == (400, 0.001, 0.4)
    assert (ttft.p50, ttft.p90, ttft.p95, ttft.p99) == (0.2, 0.36, 0.38, 0.396)
    values = [i / 1000 for i in range(1, 401)]
    assert ttft.mean == pytest.approx(statistics.mean(values))
    assert ttft.sd == pytest.approx(statistics.stdev(values))


@pytest.mark.parametrize(
    ("count", "given"),
    [(5, ""), (6, "p50"), (34, "p50"), (35, "p50 p90"), (73, "p50 p90 p95"), (381, "p50 p90 p95 p99")],
)
def test_a_percentile_is_blank_below_its_floor(count, given):
    ttft = summarise(many(count), WINDOW).ttft_s
    assert [name for name in ("p50", "p90", "p95", "p99", "p99.9") if ttft.get(name) is not None] == given.split()


def test_latencies_come_from_ok_requests_of_the_measured_phase_alone():
    records = [reply(), reply(phase="warmup", ttft_s=9.0), reply(phase="probe", ttft_s=9.0), reply(status="reset")]
    summary = summarise(records, WINDOW)
    assert (summary.ttft_s.n, summary.ttft_s.max) == (1, 0.05)


def test_ttft_from_schedule_holds_the_wait_and_lateness_is_audited_for_failures_too():
    summary = summarise([reply(t_sched=9.75), failure(t_sched=9.5)], WINDOW)
    assert summary.ttft_from_schedule_s.max == pytest.approx(0.3)
    assert (summary.audit.late_s.n, summary.audit.late_s.max) == (2, 0.5)


def test_gaps_are_between_chunks_and_the_stall_is_the_longest_of_a_reply():
    records = [reply(chunks=(50_000, 60_000, 90_000)), reply(chunks=(10_000,)), reply(chunks=(5, 2_000_005))]
    summary = summarise(records, WINDOW)
    assert (summary.chunk_gap_s.n, summary.chunk_gap_s.min, summary.chunk_gap_s.max) == (3, 0.01, 2.0)
    assert summary.chunk_gap_s.mean == pytest.approx(2.04 / 3)
    assert (summary.stall_s.n, summary.stall_s.min, summary.stall_s.max) == (2, 0.03, 2.0)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.integers(0, 3_000_000), min_size=1, max_size=30), min_size=1, max_size=60))
def test_the_counts_of_microseconds_give_what_the_raw_gaps_give(steps):
    chunks = [tuple(sum(row[: i + 1]) for i in range(len(row))) for row in steps]
    gaps = sorted(gap for row in steps for gap in row[1:])
    found = summarise([reply(chunks=row) for row in chunks], WINDOW).chunk_gap_s
    assert found.n == len(gaps)
    if gaps:
        assert (found.min, found.max) == (gaps[0] / 1e6, gaps[-1] / 1e6)
        assert found.mean == pytest.approx(statistics.mean(gaps) / 1e6)
    if len(gaps) > 1:
        assert found.sd == pytest.approx(statistics.stdev(gaps) / 1e6, abs=1e-9)
    if len(gaps) >= 35:
        assert found.p90 == gaps[math.ceil(round(0.9 * len(gaps), 9)) - 1] / 1e6


def test_speeds_of_a_request_are_named_apart():
    summary = summarise([reply(chunks=(100_000, 150_000, 200_000))], WINDOW)
    assert summary.decode_tok_s.max == pytest.approx(20)
    assert summary.request_tok_s.max == pytest.approx(15)
    assert summary.request_total_tok_s.max == pytest.approx(15 * (summary.in_tok.mean + 3) / 3)


def test_a_reply_that_came_at_once_has_no_decoding_speed():
    assert summarise([reply(chunks=(100_000, 100_000))], WINDOW).decode_tok_s == Distribution(n=0)


def test_a_percentile_carries_its_interval_its_worth_and_its_certified_limit():
    drawn = [random.Random(i // 5).randrange(100_000) for i in range(700)]
    waves = [reply(10 + i / 700, (ttft_us, 200_000)) for i, ttft_us in enumerate(drawn)]
    ttft = summarise(waves, WINDOW).ttft_s  # five neighbours at a time are alike
    low, high = ttft.intervals["p90"]
    assert low < ttft.p90 < high
    assert ttft.n_eff["p90"] == pytest.approx(140, rel=0.3)
    independent = summarise([reply(10 + i / 700, (i * 7919 % 997 + 1, 2000)) for i in range(700)], WINDOW).ttft_s
    assert independent.n_eff["p99"] > 662
    assert independent.certified["p90"] > independent.p90
    assert independent.certified["p99"] == pytest.approx(independent.max, abs=2e-6)


def test_the_order_in_which_records_were_written_does_not_matter():
    one, other = summarise(many(300), WINDOW), summarise(many(300)[::-1], WINDOW)
    assert other.in_flight == pytest.approx(one.in_flight)  # a sum of floats
    assert msgspec.structs.replace(other, in_flight=one.in_flight) == one


@pytest.mark.parametrize("count", [2047, 2048, 2049, 5000])
def test_blocks_of_records_lose_none(count):
    summary = summarise((reply(10 + i * 29 / count) for i in range(count)), WINDOW)
    assert summary.output_tok_s == pytest.approx(3 * count / 30)
    assert (summary.chunk_gap_s.n, summary.stall_s.n, summary.ttft_s.n) == (2 * count, count, count)


# What else a summary says ---------------------------------------------------------------------------------------------


def test_errors_are_shown_by_example_three_of_a_kind():
    records = [reply(), *(failure("http_error", err=f"500: {i % 5}") for i in range(10)), failure("reset")]
    assert summarise(records, WINDOW).errors == {"http_error": ["500: 0", "500: 1", "500: 2"]}


def test_sources_of_token_counts_finish_reasons_and_clocks_are_counted():
    summary = summarise([reply(), reply(tok_source="ids", finish="stop", clock="user"), reply()], WINDOW)
    assert summary.tok_source == {"usage": 2, "ids": 1}
    assert summary.finish == {"length": 2, "stop": 1}
    assert summary.audit.clocks == {"kernel": 2, "user": 1}


def test_replies_of_another_length_than_asked_are_counted():
    records = [reply(ask_tok=3), reply(ask_tok=3, out_tok=2), reply(ask_tok=4)]
    assert summarise(records, WINDOW, Context(exact_tok=3)).wrong_length == 2
    assert summarise(records, WINDOW).wrong_length is None


def test_prompts_and_the_share_from_the_prefix_cache_are_counted():
    records = [reply(prompt_sha="00ff00ff00ff00ff", cached_tok=3, in_tok=10), reply(prompt_sha="00ff00ff00ff00ff")]
    summary = summarise([*records, reply(prompt_sha="ffffffffffffffff")], WINDOW)
    assert summary.prompts == 2
    assert summary.cached_share == pytest.approx(0.3)
    assert (summary.in_tok_sum, summary.out_tok_sum) == (24, 9)


def test_tokens_per_chunk_and_merged_reads_are_shares_of_the_chunks():
    summary = summarise([reply(out_tok=6, coalesced=1), reply()], WINDOW)
    assert summary.audit.tok_per_chunk == pytest.approx(9 / 6)
    assert summary.audit.coalesced_share == pytest.approx(1 / 6)


def test_an_open_loop_compares_what_was_offered_with_what_was_sent():
    records = [reply(10.0 + i, t_sched=10.0 + i) for i in range(3)]
    late = reply(40.5, t_sched=39.9)
    summary = summarise([*records, late, failure("dropped", t_send=None)], WINDOW)
    assert summary.audit.offered_rps == pytest.approx(5 / 30)
    assert summary.audit.achieved_rps == pytest.approx(3 / 30)
    assert summarise(records, WINDOW, Context(scheduled=6)).audit.offered_rps == pytest.approx(6 / 30)


def test_a_closed_loop_has_no_offered_rate():
    audit = summarise([reply()], WINDOW, Context(concurrency=1)).audit
    assert (audit.offered_rps, audit.achieved_rps) == (None, None)


def test_tokens_of_replies_that_ended_are_counted_whole_and_of_a_closed_loop_of_single_requests_alone():
    records = [reply(9.9, (50_000, 150_000, 250_000), phase="warmup"), reply(39.9, (50_000, 150_000, 250_000))]
    closed = Context(concurrency=1)
    assert summarise(records, WINDOW, closed).audit.ended_tok_s == pytest.approx(3 / 30)
    assert summarise(records, WINDOW).audit.ended_tok_s is None
    assert summarise(records, WINDOW, Context(concurrency=1, conversations=True)).audit.ended_tok_s is None
    uncounted = [*records, reply(out_tok=None, tok_source=None)]
    assert summarise(uncounted, WINDOW, closed).audit.ended_tok_s is None


def test_a_window_of_half_a_second_has_rates_and_the_last_ten_of_its_warm_up_their_change():
    before = [reply(send, phase="warmup") for send in (6.0, 14.0, 18.0, 19.0)]
    summary = summarise([*before, reply(20.1)], Window(20, 20.5), Context(concurrency=1))
    assert (summary.request_rps, summary.output_tok_s) == (pytest.approx(2), pytest.approx(6))
    assert summary.audit.ended_tok_s == pytest.approx(6)
    assert summary.in_flight == pytest.approx(0.071 / 0.5)
    assert summary.audit.warmup_change == pytest.approx(1)  # from 3 tokens in 5 s to 6
    assert summarise([reply(10.1)], Window(10, 10.5)).audit.offered_rps == pytest.approx(2)


def test_a_warm_up_of_ten_seconds_has_a_change_and_a_shorter_one_has_not():
    for w0, change in ((10.0, pytest.approx(1)), (9.9, None)):
        records = [reply(w0 - ago, phase="warmup") for ago in (6, 2, 1)]
        assert summarise([*records, reply(w0 + 1)], Window(w0, w0 + 30)).audit.warmup_change == change


def test_whole_replies_have_no_ttft_and_count_their_tokens_at_their_end():
    whole = {"ttft_s": None, "tpot_s": None, "t_first": None, "chunk_us": [], "out_tok": 8}
    records = [reply(9.0, t_last=9.9, t_end=9.9, phase="warmup", **whole), reply(9.5, t_last=10.5, t_end=10.5, **whole)]
    summary = summarise(records, WINDOW, Context(stream=False))
    assert summary.output_tok_s == pytest.approx(8 / 30)
    assert summary.total_tok_s == pytest.approx(15 / 30)
    assert summary.ttft_s == summary.tpot_s == summary.chunk_gap_s == summary.stall_s == Distribution(n=0)
    assert summary.audit.tok_per_chunk is None
    assert summary.state == "ok"


def test_a_repeat_without_an_ok_request_has_no_rates_and_has_failed():
    summary = summarise([failure(), failure("timeout")], WINDOW)
    rates = (summary.request_rps, summary.output_tok_s, summary.total_tok_s, summary.goodput_rps)
    assert rates == (None, None, None, None)
    assert (summary.error_rate, summary.state, summary.in_tok_sum) == (1.0, "failed", None)
    assert summary.ttft_s == Distribution(n=0)


def test_no_records_at_all_give_nothing_but_none():
    summary = summarise([], WINDOW)
    assert [summary.get(Measure(name)) for name in METRICS] == [None] * len(METRICS)
    assert summary.state == "failed"


@pytest.mark.parametrize("records", [[], [failure()], [reply()], [reply(out_tok=None)], many(80)])
def test_a_summary_is_json_without_nan_and_comes_back_equal(records):
    summary = summarise(records, WINDOW, Context(worker_cpu=(0.3,), limits={"ttft_s": 1}))
    data = msgspec.json.encode(summary)
    assert msgspec.json.decode(data, type=Summary) == summary
    assert json.loads(data)["ttft_s"].keys() >= {"n", "p50", "p99.9"}
    assert not [value for value in _leaves(msgspec.to_builtins(summary)) if isinstance(value, float) and value != value]


def _leaves(value: object) -> list[object]:
    if isinstance(value, dict):
        return [leaf for held in value.values() for leaf in _leaves(held)]
    if isinstance(value, list | tuple):
        return [leaf for held in value for leaf in _leaves(held)]
    return [value]


def test_a_measure_is_looked_up_in_a_summary():
    summary = summarise(many(400), WINDOW)
    assert summary.get(measure("p99 ttft")) == 0.396
    assert summary.get(measure("output_tok_s")) == summary.output_tok_s
    assert summary.get(measure("p99.9 ttft")) is None
