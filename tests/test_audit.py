"""What weakens a repeat and what forbids trusting it: each sentence at its limit, on both sides of it."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest
from test_summarise import failure, reply

from loadgen.audit import audited_p99, doubts, invalid, late_limit
from loadgen.record import Record
from loadgen.summarise import summarise
from loadgen.summary import Context, Doubt, Summary, Window

LONG = Window(12, 52)


def run(count: int = 400, late: float = 0.0, **fields: object) -> list[Record]:
    """A flawless repeat: enough requests, each ``late`` seconds after its time, TTFT 50 ms."""
    sends = [12 + i * 39 / count for i in range(count)]
    return [reply(send, **{"t_sched": send - late, "prompt_sha": f"{i:x}", **fields}) for i, send in enumerate(sends)]


def codes(summary: Summary) -> list[str]:
    return [doubt.code for doubt in (*summary.invalid, *summary.doubts)]


def text(summary: Summary, code: str) -> str:
    return next(doubt.text for doubt in (*summary.invalid, *summary.doubts) if doubt.code == code)


def test_a_flawless_repeat_has_no_doubt():
    summary = summarise(run(), LONG)
    assert codes(summary) == []
    assert summary.state == "ok"


# Invalid --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ttft", "limit"), [(0.01, 0.001), (0.02, 0.001), (0.05, 0.0025), (0.1, 0.005), (9.0, 0.005)])
def test_the_limit_of_lateness_is_5_percent_of_ttft_between_1_and_5_ms(ttft, limit):
    assert late_limit([ttft] * 9) == pytest.approx(limit)


@pytest.mark.parametrize(("ttft", "limit"), [(0.01, 0.005), (0.1, 0.005), (2.0, 0.1)])
def test_a_burst_is_not_late_where_sending_it_is_little_of_what_its_requests_wait(ttft, limit):
    assert late_limit([ttft] * 9, burst=True) == pytest.approx(limit)


def test_the_limit_of_a_burst_is_that_of_the_repeat():
    assert "late" in codes(summarise(run(late=0.006, ttft_s=2.0), LONG))
    assert "late" not in codes(summarise(run(late=0.006, ttft_s=2.0), LONG, Context(burst=True)))


def test_the_limit_of_lateness_without_ttft_is_5_ms():
    assert late_limit([]) == 0.005


def test_a_client_that_sends_late_makes_the_repeat_invalid():
    summary = summarise(run(late=0.003), LONG)
    assert summary.state == "invalid"
    assert text(summary, "late") == (
        "The client sent late: 3 ms at p99, the limit is 2.5 ms. "
        "Use more workers or a lower load, or give the client cores of its own."
    )
    assert summarise(run(late=0.002), LONG).state == "ok"


def waves(window: Window, streams: int = 64, life_s: float = 10.0, spread_s: float = 0.0) -> Summary:
    """A closed loop whose streams all wait for 6 s and then get 40 tokens in 4; ``spread_s`` sets them apart."""
    chunks = tuple(int((0.6 + 0.01 * token) * life_s * 1e6) for token in range(1, 41))
    sends = [turn * life_s + spread_s * i / streams - life_s for i in range(streams) for turn in range(9)]
    records = [reply(send, chunks, phase="measure" if send >= window.w0 else "warmup") for send in sends if send >= 0]
    return summarise(records, window, Context(concurrency=streams))


def test_a_window_that_holds_one_phase_of_requests_in_step_is_invalid():
    summary = waves(Window(18.5, 25.5))  # the end of a burst, and the pause before the next
    assert summary.state == "invalid"
    assert text(summary, "one_phase") == (
        "Requests ran in step: 146.3 output tok/s arrived in the window, the replies that ended in it make 365.7. "
        "The window holds one phase of it, and no rate: make load.window_s 100 s or more, "
        "10 times what a request takes (10 s); or load.ramp_s 20 s, so that slots start apart and stay so."
    )


def test_an_open_loop_in_step_has_no_slots_that_could_start_apart():
    summary = waves(Window(18.5, 25.5))
    open_loop = msgspec.structs.replace(summary, audit=msgspec.structs.replace(summary.audit, offered_rps=6.4))
    said = next(doubt.text for doubt in invalid(open_loop) if doubt.code == "one_phase")
    assert said.endswith("make load.window_s 100 s or more, 10 times what a request takes (10 s).")


def test_requests_in_step_do_not_matter_to_a_window_of_whole_waves():
    assert not {"one_phase", "in_step"} & set(codes(waves(Window(15, 45))))


def test_requests_at_places_of_their_own_are_not_in_step_whatever_the_window():
    for end in range(24, 60, 3):
        assert not {"one_phase", "in_step"} & set(codes(waves(Window(20, end), spread_s=10.0)))


def test_a_small_difference_of_requests_in_step_is_a_doubt():
    summary = waves(Window(16.75, 45))
    assert "in_step" in codes(summary)
    assert "one_phase" not in codes(summary)


@pytest.mark.parametrize(
    ("in_flight", "ended", "code"),
    [  # of 1 tok/s that arrived; 3 tokens a reply: a standard deviation is 0.075 sqrt(in_flight / 6) tok/s
        (6, 1 - 2.99 * 0.075, None),
        (6, 1 - 3.01 * 0.075, "in_step"),
        (6, 1 - 4.99 * 0.075, "in_step"),
        (6, 1 - 5.01 * 0.075, "one_phase"),
        (6, 1 / (1 - 0.0751 * 5), "one_phase"),
        (6e-4, 0.951, None),
        (6e-4, 0.949, "in_step"),
        (6e-4, 0.901, "in_step"),  # 9.9 % of the larger one, 11 % of the smaller
        (6e-4, 0.899, "one_phase"),
        (6, 0.0, None),  # no reply ended in the window, and that says nothing
        (0, 0.5, None),
    ],
)
def test_requests_in_step_are_those_that_are_both_surely_and_far_from_an_even_spread(in_flight, ended, code):
    plain = summarise(run(), LONG)
    audit = msgspec.structs.replace(plain.audit, ended_tok_s=ended)
    summary = msgspec.structs.replace(plain, output_tok_s=1.0, in_flight=in_flight, audit=audit)
    found = [doubt.code for doubt in (*invalid(summary), *doubts(summary, Context()))]
    assert found == ([] if code is None else [code])


@pytest.mark.parametrize(("tokens", "said"), [(1.04, False), (1.06, True)])
def test_chunks_may_hold_5_percent_more_than_a_token_each(tokens, said):
    plain = summarise(run(), LONG)
    audit = msgspec.structs.replace(plain.audit, tok_per_chunk=tokens)
    found = doubts(msgspec.structs.replace(plain, audit=audit), Context())
    assert [doubt.code for doubt in found] == (["chunks"] if said else [])


@pytest.mark.parametrize(("held", "said"), [(14.3, True), (14.5, False)])
def test_a_closed_loop_may_lack_a_tenth_of_its_requests_in_flight(held, said):
    summary = msgspec.structs.replace(summarise(run(), LONG), in_flight=held)
    found = doubts(summary, Context(concurrency=16))
    assert ("not_full" in [doubt.code for doubt in found]) == said


def test_codes_are_all_that_this_file_can_say():
    from loadgen import audit

    said = re.findall(r'Doubt\(\s*"(\w+)"', Path(audit.__file__).read_text())
    assert set(said) == audit.CODES


def test_two_late_sends_of_99_condemn_and_one_is_a_doubt():
    records = run(99)
    records[7].t_sched -= 0.1
    one = summarise(records, LONG)
    assert one.state == "ok"
    assert text(one, "late_once") == "The latest send came 100 ms after its time; the limit for the p99 is 2.5 ms."
    records[8].t_sched -= 0.1
    assert summarise(records, LONG).state == "invalid"


def test_one_late_send_of_100_is_within_the_last_percent():
    records = run(100)
    records[7].t_sched -= 0.1
    assert "late_once" not in codes(summarise(records, LONG))


def test_the_audited_p99_leaves_out_the_largest_of_few_and_is_nearest_rank_of_many():
    assert audited_p99([]) is None
    assert audited_p99([9]) is None
    assert audited_p99([1, 9]) == 1
    assert audited_p99(range(1, 101)) == 99
    assert audited_p99(range(1, 201)) == 198


@pytest.mark.parametrize(("share", "state"), [(0.85, "ok"), (0.86, "invalid")])
def test_a_worker_without_cpu_to_spare_makes_the_repeat_invalid(share, state):
    summary = summarise(run(), LONG, Context(worker_cpu=(0.1, share)))
    assert summary.state == state
    if state == "invalid":
        assert text(summary, "cpu").startswith("Worker 1 used 86 % of a core, the limit is 85 %")


@pytest.mark.parametrize(("scheduled", "state"), [(408, "ok"), (409, "invalid")])
def test_fewer_sends_than_the_schedule_asked_for_make_the_repeat_invalid(scheduled, state):
    assert summarise(run(), LONG, Context(scheduled=scheduled)).state == state


def test_sends_that_the_cap_dropped_are_named():
    dropped = [failure("dropped", t_send=None, t_sched=20.0) for _ in range(20)]
    summary = summarise([*run(), *dropped], LONG)
    assert summary.state == "invalid"
    assert "20 were dropped at load.max_in_flight" in text(summary, "sends")


def test_a_closed_loop_is_never_short_of_sends():
    assert summarise(run(), LONG, Context(concurrency=1, scheduled=9999)).invalid == ()


@pytest.mark.parametrize(
    ("count", "skew", "state"),
    [(400, 0.0097, "ok"), (400, 0.0101, "invalid"), (4000, 0.0049, "ok"), (4000, 0.0051, "invalid"), (400, None, "ok")],
)
def test_workers_that_start_apart_by_more_than_5_ms_or_a_tenth_of_the_gap_make_the_repeat_invalid(count, skew, state):
    summary = summarise(run(count), LONG, Context(skew_s=skew))  # 400 in 40 s: a gap of 0.1 s
    assert (summary.state, summary.audit.skew_s) == (state, skew)
    assert ("skew" in codes(summary)) == (state == "invalid")


# Doubts ---------------------------------------------------------------------------------------------------------------


def test_failures_are_counted_by_kind_the_most_frequent_first():
    summary = summarise([*run(), failure("reset"), failure("timeout"), failure("timeout")], LONG)
    assert text(summary, "errors") == (
        "3 of 403 requests failed (2 timeout, 1 reset): latencies come from the 400 others."
    )


def test_of_the_most_frequent_failure_that_says_anything_one_is_quoted():
    told = [failure("reset", err="cut."), failure("reset", err="gone"), failure("timeout"), *[failure("empty")] * 3]
    assert text(summarise([*run(), *told], LONG), "errors").endswith("400 others. One of them: reset: cut.")
    long = text(summarise([failure("malformed", err="x" * 300)], LONG), "errors")
    assert long.endswith(f"nothing to measure. One of them: malformed: {'x' * 160} ...")


def test_replies_that_the_end_cut_off_are_said_to_be_missing_from_the_tail():
    assert "longest replies are missing" in text(summarise([*run(), failure("cancelled")], LONG), "cut_off")


@pytest.mark.parametrize(
    ("fields", "context", "code", "said"),
    [
        ({"tok_source": "tokenizer"}, Context(), "guessed_tokens", "400 of 400 replies were counted by a tokenizer"),
        ({"tok_source": None, "out_tok": None}, Context(), "unknown_tokens", "token rates are blank"),
        ({"in_tok": None}, Context(), "unknown_prompt_tokens", "400 of 400 requests"),
        (
            {"ask_tok": 4},
            Context(exact_tok=4),
            "lengths",
            "400 of 400 replies do not have the 4 tokens asked for (3 to 3)",
        ),
        ({"out_tok": 6}, Context(), "chunks", "A chunk holds 2.00 tokens on average"),
        ({}, Context(stream=False), "whole_replies", "there is no TTFT or TPOT"),
        ({"clock": "user"}, Context(), "user_clock", "400 of 400 requests were stamped when this program read them"),
        ({"coalesced": 1}, Context(), "coalesced", "33.3 % of the chunks"),
        ({}, Context(concurrency=16), "not_full", "not the 16 of the concurrency"),
        ({"cached_tok": 1}, Context(), "cached", "14.3 % of the prompt tokens"),
        ({"prompt_sha": "aa"}, Context(), "repeated_prompts", "400 requests asked 1 different prompts; nobody knows"),
        ({"prompt_sha": "aa"}, Context(prefix_cache=True), "repeated_prompts", "prefix cache is on"),
    ],
)
def test_what_weakens_a_number_is_said_with_its_numbers(fields, context, code, said):
    assert said in text(summarise(run(**fields), LONG, context), code)


@pytest.mark.parametrize("context", [Context(prefix_cache=False)])
def test_repeated_prompts_are_no_doubt_without_a_prefix_cache(context):
    assert codes(summarise(run(prompt_sha="aa"), LONG, context)) == []


def test_repeated_prompts_are_no_doubt_where_the_server_says_that_none_was_cached():
    assert codes(summarise(run(prompt_sha="aa", cached_tok=0), LONG)) == []


def test_a_blank_percentile_says_what_would_fill_it():
    assert text(summarise(run(1), LONG), "few_samples") == (
        "p50, p90, p95 and p99 are blank: they need 6, 35, 73 and 381 replies, and there was 1. At this rate a "
        "load.window_s of 240, 1400, 2920 and 15240 s holds so many."
    )
    assert text(summarise(run(300), LONG, Context(burst=True)), "few_samples") == (
        "p99 is blank: it needs 381 replies, and there were 300. Raise load.burst."
    )
    assert "few_samples" not in codes(summarise(run(381), LONG))


def test_a_short_window_a_short_warm_up_and_a_small_sample_are_said():
    summary = summarise(run(50), Window(3, 8))
    assert text(summary, "short_window") == "The window lasted 5 s, less than 30 s."
    assert text(summary, "short_warmup") == "Warm-up lasted 3 s, less than 10 s."
    assert text(summary, "few_samples") == (
        "p95 and p99 are blank: they need 73 and 381 replies, and there were 50. At this rate a load.window_s of "
        "8 and 39 s holds so many."
    )


def test_a_warm_up_of_fewer_requests_than_twice_the_concurrency_is_said():
    warm = [reply(i, phase="warmup", t_end=12.0 + i) for i in range(3)]
    full = [reply(12, t_end=52.0) for _ in range(2)]
    summary = summarise([*warm, *run(), *full], LONG, Context(concurrency=2))
    assert text(summary, "short_warmup") == "3 requests ended in warm-up, fewer than twice the concurrency (4)."


def test_a_warm_up_that_still_changed_is_said():
    steady = [reply(2.05 + i / 10, phase="warmup") for i in range(99)]
    assert summarise([*steady, *run()], LONG).audit.warmup_change == pytest.approx(1 / 50, abs=0.011)
    rising = [*steady, *(reply(8.0, phase="warmup") for _ in range(10))]
    summary = summarise([*rising, *run()], LONG)
    assert text(summary, "unsteady").startswith("Output tok/s still changed by")


def test_doubts_that_the_caller_has_come_first():
    mine = Doubt("weights", "The weights are random.")
    assert summarise(run(50), LONG, Context(doubts=(mine,))).doubts[0] == mine


def test_a_window_without_a_request_says_so_and_nothing_else():
    assert codes(summarise([], LONG)) == ["no_requests"]
