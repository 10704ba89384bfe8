"""The load that is put on is the load that was asked for: how many, when, how many at once, and what is warm-up."""

from __future__ import annotations

import gc
import itertools
import threading
import time
from collections import Counter
from typing import Any

import pytest
from drive_driver import drive
from drive_servers import END, FINISH, STREAM, Peer, RawServer, Script, answering, event, reply

from loadgen.arrival import Arrival
from loadgen.drive.loop import Loop
from loadgen.drive.outcome import Exchange
from loadgen.drive.reply import Reply
from loadgen.record import Record

QUICK = answering(reply(1))


def constant(rate: float) -> Arrival:
    return Arrival(kind="constant", rate_rps=rate)


def slow(seconds: float) -> Script:
    """Answers with one token, and ends so many seconds later."""
    return answering(STREAM + event(" a"), FINISH + END, gap=seconds)


def most_at_once(records: list[Record]) -> int:
    """The most requests that were in flight at the same time, by their records."""
    edges = sorted([*((r.t_send, 1) for r in records), *((r.t_end, -1) for r in records)])  # type: ignore[type-var]
    return max(itertools.accumulate(step for _, step in edges))


def test_fifty_a_second_for_a_second_is_fifty_records_exactly_at_the_times_of_the_schedule() -> None:
    with RawServer(QUICK) as server:
        driven = drive(server.url, {"arrival": constant(50.0), "window_s": 1.0}, connections=5)
    assert driven.statuses == {"ok": 50}
    found = {record.session: record for record in driven.records}
    assert sorted(found) == list(range(50))
    assert [found[n].t_sched for n in range(50)] == pytest.approx([n / 50 for n in range(50)], abs=1e-9)
    assert all((record.t_send or 0) >= record.t_sched for record in driven.records)


def test_a_send_that_is_late_shifts_none_of_those_behind_it() -> None:
    held = []

    def hold_up(loop: Loop) -> None:
        if not held and time.monotonic_ns() > loop.start + 100_000_000:
            held.append(time.monotonic_ns())
            time.sleep(0.2)

    with RawServer(QUICK) as server:
        driven = drive(server.url, {"arrival": constant(100.0), "window_s": 1.0}, connections=12, during=hold_up)
    late = {record.session: (record.t_send or 0) - record.t_sched for record in driven.records}
    assert len(late) == 100
    assert [r.t_sched for r in sorted(driven.records, key=lambda r: r.session)] == pytest.approx(
        [n / 100 for n in range(100)], abs=1e-9
    )
    # Those that were due meanwhile are late, and their records say so; what came after them is not shifted.
    assert max(late.values()) > 0.15
    assert min(late[n] for n in range(50, 100)) < 0.1


@pytest.mark.parametrize("load", [{"concurrency": 2}, {"arrival": constant(100.0)}], ids=["closed", "open"])
def test_a_client_is_not_late_by_itself(load: dict[str, Any]) -> None:
    """A busy machine makes many sends late, and never all of them."""
    with RawServer(QUICK) as server:
        driven = drive(server.url, {**load, "requests": 60}, connections=3)
    late = [(record.t_send or 0) - record.t_sched for record in driven.records]
    assert 0 <= min(late) < 2e-3


def test_an_open_loop_does_not_wait_for_replies() -> None:
    all_are_in = threading.Barrier(10)

    def script(peer: Peer) -> None:
        peer.request()
        all_are_in.wait(10)
        peer.send(reply(1))

    with RawServer(script) as server:
        driven = drive(server.url, {"arrival": constant(50.0), "window_s": 0.2}, connections=10)
    assert driven.statuses == {"ok": 10}
    assert most_at_once(driven.records) == 10


def test_a_burst_is_due_at_once_and_every_reply_is_read() -> None:
    arrival = Arrival(kind="burst", count=90)
    with RawServer(QUICK) as server:
        driven = drive(server.url, {"arrival": arrival}, connections=90)
    assert driven.statuses == {"ok": 90}  # their sockets and the server's fit into 256 open files
    assert {record.t_sched for record in driven.records} == {0.0}


@pytest.mark.parametrize("slots", [1, 3, 8])
def test_a_closed_loop_has_its_slots_in_flight_and_each_sends_when_its_reply_has_ended(slots: int) -> None:
    lock, now, most, all_are_in = threading.Lock(), [0], [0], threading.Barrier(slots)

    def script(peer: Peer) -> None:
        for turn in itertools.count():
            peer.request()
            with lock:
                now[0] += 1
                most[0] = max(most[0], now[0])
            if turn == 0:
                all_are_in.wait(10)
            peer.send(STREAM + event(" a"), gap=0.005)
            with lock:
                now[0] -= 1
            peer.send(FINISH + END)

    with RawServer(script) as server:
        driven = drive(server.url, {"concurrency": slots, "requests": 5 * slots}, connections=slots)
    assert driven.statuses == {"ok": 5 * slots}
    assert most[0] == slots
    starts = Counter(record.t_sched for record in driven.records)
    ends = Counter(record.t_end for record in driven.records)
    assert starts.pop(0.0) == slots
    assert not starts - ends  # every later send was due at the end of a reply, each at another's
    assert {record.session for record in driven.records} == set(range(5 * slots))


def test_a_ramp_starts_slots_one_after_the_other() -> None:
    with RawServer(slow(0.2)) as server:
        driven = drive(server.url, {"concurrency": 4, "ramp_s": 0.2, "requests": 4}, connections=4)
    assert sorted(record.t_sched for record in driven.records) == pytest.approx([0.0, 0.05, 0.1, 0.15], abs=1e-9)


@pytest.mark.parametrize("load", [{"concurrency": 3}, {"arrival": constant(200.0)}], ids=["closed", "open"])
def test_a_limit_by_count_is_exact_and_counts_measured_requests_alone(load: dict[str, Any]) -> None:
    with RawServer(slow(0.01)) as server:
        driven = drive(server.url, {**load, "warmup_s": 0.4, "requests": 17}, connections=3)
    phases = Counter(record.phase for record in driven.records)
    assert phases["measure"] == 17
    assert phases["warmup"] > 0
    assert min(record.t_send or 0 for record in driven.records if record.phase == "measure") >= 0.4
    assert max(record.t_sched for record in driven.records if record.phase == "warmup") < 0.4


@pytest.mark.parametrize(
    ("worker", "workers", "load", "mine"),
    [
        (0, 3, {"concurrency": 5}, 4),
        (1, 3, {"concurrency": 5}, 3),
        (2, 3, {"concurrency": 5}, 3),
        (0, 3, {"concurrency": 2}, 5),
        (1, 3, {"concurrency": 2}, 5),
        (2, 3, {"concurrency": 2}, 0),
        (0, 2, {"arrival": constant(500.0)}, 5),
        (1, 2, {"arrival": constant(500.0)}, 5),
    ],
)
def test_a_limit_by_count_is_dealt_over_the_workers_that_can_send(
    worker: int, workers: int, load: dict[str, Any], mine: int
) -> None:
    with RawServer(QUICK) as server:
        driven = drive(server.url, {**load, "requests": 10}, worker=worker, workers=workers)
    assert len(driven.records) == mine
    assert all(record.session % workers == worker == record.worker for record in driven.records)


def test_a_window_ends_by_the_clock_and_what_is_in_flight_may_end_in_the_drain() -> None:
    with RawServer(slow(0.5)) as server:
        driven = drive(server.url, {"concurrency": 2, "window_s": 0.2}, connections=2)
    assert driven.statuses == {"ok": 2}  # their slots were free again after the window
    assert min(record.t_end or 0 for record in driven.records) > 0.2


def test_the_drain_counts_from_the_end_of_the_window_not_from_the_last_send() -> None:
    arrival = Arrival(kind="timestamps", timestamps=(0.0, 5.0))
    with RawServer(slow(0.2)) as server:
        driven = drive(server.url, {"arrival": arrival, "window_s": 3.0, "drain_s": 0.05})
    assert driven.statuses == {"ok": 1}


def test_a_warm_up_of_no_fixed_length_ends_when_it_is_told() -> None:
    def tell(loop: Loop) -> None:
        now = time.monotonic_ns()
        if loop.measure_from > now and now > loop.start + 100_000_000:
            loop.measure_from_now(now)

    with RawServer(slow(0.01)) as server:
        driven = drive(server.url, {"concurrency": 1, "warmup_s": None, "window_s": 0.5}, during=tell)
    phases = [record.phase for record in driven.records]
    assert phases == sorted(phases, reverse=True)
    assert set(phases) == {"warmup", "measure"}


def test_a_courtesy_rate_spaces_sends_out_over_all_workers() -> None:
    with RawServer(QUICK) as server:
        shape = {"concurrency": 4, "requests": 5, "max_rps": 40.0}
        alone = drive(server.url, shape, connections=4)
        one_of_two = drive(server.url, {**shape, "requests": 6}, connections=4, workers=2)
    for driven, gap in ((alone, 0.025), (one_of_two, 0.05)):
        sends = sorted(record.t_send or 0 for record in driven.records)
        assert all(at >= number * gap for number, at in enumerate(sends))


def test_the_phase_of_a_probe_is_probe() -> None:
    with RawServer(QUICK) as server:
        assert drive(server.url, {"concurrency": 1, "requests": 1}, phase="probe").only.phase == "probe"


def test_ticks_add_up_to_the_records() -> None:
    before = time.monotonic_ns()
    with RawServer(slow(0.05)) as server:
        driven = drive(server.url, {"concurrency": 2, "window_s": 1.2}, connections=2)
    assert len(driven.ticks) >= 2
    times = [tick.t for tick in driven.ticks]
    assert times == sorted(times)
    assert times[0] >= 1.0  # a second is over, and not less
    assert 1.2 <= times[-1] <= (time.monotonic_ns() - before) / 1e9
    assert sum(tick.tokens for tick in driven.ticks) == sum(record.out_tok or 0 for record in driven.records)
    assert sum(tick.sent for tick in driven.ticks) == len(driven.records) == driven.loop.tally.sent_total
    ended = sum((Counter(tick.ended) for tick in driven.ticks), Counter())
    assert ended == driven.statuses
    assert sorted(ms for tick in driven.ticks for ms in tick.ttft_ms) == pytest.approx(
        sorted((record.ttft_s or 0) * 1e3 for record in driven.records), abs=0.001
    )
    assert driven.ticks[0].in_flight == 2


def test_nothing_of_a_request_is_kept_after_its_record() -> None:
    """Without the cyclic collector, as a worker runs: what is not freed at once is never freed."""
    written, kept = [], []

    def look(loop: Loop) -> None:
        if not written:
            write, loop.write = loop.write, lambda lines: (written.append(lines.count(b"\n")), write(lines))
            written.append(sum(loop.tally.ended.values()) - len(loop.lines))
        without_record = loop.tally.sent_total + loop.tally.sent - sum(written) - len(loop.lines)
        if len(kept) < 40:
            kept.append(sum(type(thing) is Exchange for thing in gc.get_objects()) - without_record)

    gc.collect()
    gc.disable()
    try:
        with RawServer(QUICK) as server:
            driven = drive(server.url, {"concurrency": 4, "requests": 800}, connections=4, during=look)
        left = [thing for thing in gc.get_objects() if type(thing) in (Exchange, Reply)]
    finally:
        gc.enable()
    assert driven.statuses == {"ok": 800}
    assert left == []
    assert max(kept) <= 1
    assert not driven.loop.traffic.active
    assert not driven.loop.traffic.pools[0].waiting


def test_a_driver_that_is_never_idle_still_writes_its_records(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits to be understood is bounded, in bytes and in requests."""
    monkeypatch.setattr("loadgen.drive.understand._FULL_EXCHANGES", 8)
    most, calls = [0], itertools.count()
    gc.collect()  # what other tests have left

    def look(loop: Loop) -> None:
        if next(calls) % 50:  # a look at every object of the process takes a while
            return
        most[0] = max(most[0], sum(type(thing) is Exchange for thing in gc.get_objects()))

    with RawServer(QUICK) as server:
        driven = drive(server.url, {"concurrency": 4, "requests": 400}, connections=4, during=look)
    assert driven.statuses == {"ok": 400}
    assert most[0] <= 4 + 8 + 4
