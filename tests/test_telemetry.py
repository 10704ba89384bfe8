"""Prometheus pages in our words, and the warm-up that ends when throughput rests."""

from __future__ import annotations

import time

import pytest
from fakes import FakeServer

from loadgen.drive.job import Shape
from loadgen.drive.tally import Tick
from loadgen.telemetry.prometheus import parse, seen
from loadgen.telemetry.sampler import Sampler
from loadgen.warmup import WarmUp

PAGE = """# HELP x what it is
# TYPE x counter
x_total{engine="0",le="+Inf"} 3
x_total{engine="1",path="/a b"} 4.5 1700000000
plain 7
gone NaN
broken line
"""


def test_samples_are_summed_over_their_labels_and_nonsense_is_passed_over() -> None:
    assert parse(PAGE) == {"x_total": 7.5, "plain": 7.0}


def test_a_histogram_gives_the_mean_between_two_pages() -> None:
    pages = [{"b_sum": 10.0, "b_count": 10.0}, {"b_sum": 50.0, "b_count": 20.0}]
    found = seen({"batch": "b"}, pages)
    assert found.batch_seen == 4.0
    assert found.batch_source == "histogram"


def test_without_a_histogram_the_batch_is_what_was_running_when_looked_at() -> None:
    pages = [{"run": 2.0}, {"run": 4.0}, {"run": 6.0}]
    found = seen({"running": "run", "waiting": "nothing"}, pages)
    assert (found.batch_seen, found.batch_source, found.running_max) == (4.0, "samples", 6.0)
    assert found.waiting_max is None


def test_what_an_engine_does_not_say_is_none_and_never_zero() -> None:
    found = seen({"prompt_tokens": "p"}, [{}, {}])
    assert (found.prompt_tokens, found.batch_seen, found.queue_s) == (None, None, None)


def test_counters_are_found_with_and_without_total() -> None:
    pages = [{"a": 1.0, "b_total": 10.0}, {"a": 4.0, "b_total": 30.0}]
    found = seen({"prompt_tokens": "a", "generation_tokens": "b"}, pages)
    assert (found.prompt_tokens, found.generation_tokens) == (3.0, 20.0)


def test_one_page_says_nothing() -> None:
    assert seen({"running": "r"}, [{"r": 3.0}]).batch_seen is None


def test_the_sampler_reads_a_server_before_and_after() -> None:
    with FakeServer(ttft_ms=1, gap_ms=1) as server:
        start = time.monotonic_ns()
        names = {"running": "vllm:num_requests_running"}
        with Sampler([server.url + "/metrics"], names) as sampler:
            pass
        assert sampler.seen(start, time.monotonic_ns()).running_max == 0.0


def test_a_page_that_is_not_there_costs_nothing() -> None:
    with Sampler(["http://127.0.0.1:9/metrics"], {"running": "r"}) as sampler:
        pass
    assert sampler.seen(0, time.monotonic_ns()).running_max is None


def ticked(warmup: WarmUp, tokens: list[int], ended: int = 10) -> int | None:
    """Feeds one tick a second; the second at which the warm-up was over, or None."""
    for second, count in enumerate(tokens, 1):
        warmup.add(Tick(worker=0, t=float(second), tokens=count, ended={"ok": ended}))
        if warmup.over() is not None:
            return second
    return None


def test_a_steady_server_is_warm_after_ten_whole_seconds() -> None:
    assert (
        ticked(WarmUp(Shape(concurrency=4, warmup_s=None), 1), [100] * 20) == 11
    )  # the running second is not whole yet


def test_a_server_that_still_gains_speed_is_not_warm() -> None:
    rising = [10 * second for second in range(1, 15)] + [150] * 20
    assert ticked(WarmUp(Shape(concurrency=4, warmup_s=None), 1), rising) in range(19, 27)


@pytest.mark.parametrize(("rate", "at"), [(104, 11), (96, 11), (106, None), (94, None)])
def test_throughput_rests_where_it_changes_by_less_than_5_percent(rate: int, at: int | None) -> None:
    assert ticked(WarmUp(Shape(concurrency=4, warmup_s=None), 1), [100] * 5 + [rate] * 6) == at


def test_no_warm_up_is_over_before_ten_seconds_though_two_of_them_look_like_five() -> None:
    assert ticked(WarmUp(Shape(concurrency=4, warmup_s=None), 1), [250, 250] + [100] * 20) == 13


def test_two_requests_a_slot_must_be_done() -> None:
    assert ticked(WarmUp(Shape(concurrency=64, warmup_s=None), 1), [100] * 60, ended=4) == 32


def test_a_server_that_never_rests_is_measured_with_a_doubt() -> None:
    warmup = WarmUp(Shape(concurrency=1, warmup_s=None), 1)
    assert ticked(warmup, [1, 1, 1, 1, 1, 9, 9, 9, 9, 9] * 20) == 120
    assert [doubt.code for doubt in warmup.doubts()] == ["warmup_capped"]


def test_a_fixed_warm_up_needs_no_ticks() -> None:
    warmup = WarmUp(Shape(concurrency=1, warmup_s=2.5), 1)
    assert ticked(warmup, [1, 2]) is None
    assert warmup.measured_from(0) == 2.5


@pytest.mark.parametrize("workers", [2])
def test_ticks_of_several_workers_add_up(workers: int) -> None:
    warmup = WarmUp(Shape(concurrency=4, warmup_s=None), workers)
    for second in range(1, 12):
        for worker in range(workers):
            warmup.add(Tick(worker=worker, t=second + worker / 100, tokens=50, ended={"ok": 5}))
    assert warmup.over() is not None


def test_the_sampler_says_what_the_server_says_of_this_moment() -> None:
    with FakeServer(ttft_ms=1, gap_ms=1) as server:
        names = {"running": "vllm:num_requests_running", "waiting": "nothing"}
        with Sampler([f"{server.url}/metrics"], names) as sampler:
            pass  # leaving it waits for the thread, which looks once more at the end
        assert sampler.now["running"] == 0.0
        assert "waiting" not in sampler.now
