"""Whose clock stamps an arrival, and that a stamp which cannot be true is not believed."""

from __future__ import annotations

import os
import socket
import struct
import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest
from drive_driver import drive
from drive_servers import END, FINISH, STREAM, Peer, RawServer, answering, event

from loadgen.arrival import Arrival
from loadgen.drive.clock import STEP_NS, RealtimeOffset, Timer, ask_for_stamps, now_ns, realtime_ns_of, stamp_of
from loadgen.drive.outcome import Exchange
from loadgen.drive.poll import SlowPoll
from loadgen.drive.schedule import Send
from loadgen.drive.stamps import mark_of
from loadgen.drive.understand import Backlog
from loadgen.record import Prompt


def test_first_tokens_are_stamped_when_they_arrive_however_late_they_are_read() -> None:
    """The loop is kept busy while the first token comes in, and for 30 ms more: it is not the token that is late."""
    busy, came, read = threading.Event(), threading.Event(), threading.Event()
    sent = []

    def script(peer: Peer) -> None:
        peer.request()
        peer.send(STREAM)
        assert busy.wait(10)
        sent.append(now_ns())
        peer.send(event(" a"))
        sent.append(now_ns())
        came.set()
        assert read.wait(10)
        peer.send(FINISH + END)

    def hold_up(loop: Any) -> None:
        for exchange in loop.traffic.active:
            if exchange.reply is not None and exchange.reply.chunk_ns:
                read.set()
            elif exchange.reply is not None and not came.is_set():
                busy.set()
                assert came.wait(10)
                time.sleep(0.03)

    with RawServer(script) as server:
        driven = drive(server.url, {"concurrency": 1, "requests": 1}, during=hold_up)
    record = driven.only
    arrived = driven.loop.start + round((record.t_first or 0) * 1e9)
    assert sent[0] - STEP_NS <= arrived <= sent[1] + STEP_NS
    assert (record.clock, (record.lag_us_max or 0) > 25_000) == ("kernel", True)


def test_without_stamps_epoll_and_timer_everything_works_by_our_own_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """What macOS has: no kernel stamps, no epoll, no timerfd."""
    timer = SimpleNamespace(fd=-1, arm=lambda at: None, close=lambda: None)
    monkeypatch.setattr("loadgen.drive.sockets.ask_for_stamps", lambda sock: False)
    monkeypatch.setattr("loadgen.drive.traffic.make_poll", SlowPoll)
    monkeypatch.setattr("loadgen.drive.loop.Timer", lambda: timer)
    arrival = Arrival(kind="constant", rate_rps=50.0)
    with RawServer(answering(STREAM, event(" a"), FINISH, END, gap=0.005)) as server:
        closed = drive(server.url, {"concurrency": 3, "requests": 9}, connections=3)
        opened = drive(server.url, {"arrival": arrival, "window_s": 0.2})
    assert closed.statuses == {"ok": 9}
    assert opened.statuses == {"ok": 10}
    assert {record.clock for record in [*closed.records, *opened.records]} == {"user"}
    assert all((record.t_send or 0) >= record.t_sched for record in opened.records)


def test_a_kernel_that_refuses_to_stamp_is_no_error() -> None:
    def refuse(*_: int) -> None:
        raise OSError(92, "Protocol not available")

    sock: Any = SimpleNamespace(family=socket.AF_INET, setsockopt=refuse)
    assert ask_for_stamps(sock) is False


def test_a_stamp_is_read_from_its_control_message() -> None:
    stamp = struct.pack("@qq", 1_700_000_000, 123_456_789)
    assert realtime_ns_of(stamp_of([(1, 35, stamp)])) == 1_700_000_000_123_456_789
    assert realtime_ns_of(stamp_of([])) == 0
    assert realtime_ns_of(b"short") == 0


def stamped(at: int, backlog: Backlog) -> bytes:
    return struct.pack("@qq", *divmod(at + backlog.offset.ns, 1_000_000_000))


@pytest.mark.parametrize("seconds", [0, 1])
def test_stamps_that_cannot_be_true_are_replaced_and_the_record_says_so(seconds: int) -> None:
    """A stamp from before the send, or after the read, is of a clock that was set meanwhile."""
    backlog = Backlog(RealtimeOffset(), lambda _: None, lambda *_: None, lambda *_: None)
    sent = now_ns() // 1_000_000_000 * 1_000_000_000 + 400_000_000
    reads = [sent + 10_000, sent + 20_000 + seconds * 1_000_000_000]

    def arrivals(*at: int) -> tuple[list[int], bool, int]:
        exchange = Exchange(Send(0, 0, -1), Prompt(source="x", ask_tok=1), "measure")
        exchange.t_send = sent
        stamps = [stamped(moment, backlog) if moment else b"" for moment in at]
        found = backlog.arrivals(exchange, bytearray(b"".join(map(mark_of, stamps, reads))))
        return found, exchange.kernel, exchange.lag_ns

    good = [sent + 7_000, reads[1] - 1_000]
    assert arrivals(*good) == (good, True, 3_000)
    assert arrivals(sent - 5_000, good[1]) == ([reads[0], good[1]], False, 1_000)
    assert arrivals(good[0], reads[1] + 5_000) == ([good[0], reads[1]], False, 3_000)
    assert arrivals(0, good[1]) == ([reads[0], good[1]], False, 1_000)


def test_a_clock_that_is_set_is_noticed_and_one_that_drifts_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    found = iter([100, 150, 150 + STEP_NS + 1, 150 + STEP_NS + 1, 0])
    monkeypatch.setattr(RealtimeOffset, "_measure", staticmethod(lambda: next(found)))
    offset = RealtimeOffset()
    steps = []
    for _ in range(4):
        offset.sample()
        steps.append(offset.steps)
    assert (steps, offset.ns) == ([0, 1, 1, 2], 0)


def test_the_offset_turns_one_clock_into_the_other() -> None:
    offset, before = RealtimeOffset(), now_ns()
    real = time.time_ns()
    assert before - STEP_NS <= real - offset.ns <= now_ns() + STEP_NS


def test_the_timer_fires_at_its_time_and_once() -> None:
    import select

    timer = Timer()
    if timer.fd < 0:
        pytest.skip("this system has no timerfd")
    poll = select.poll()
    poll.register(timer.fd, select.POLLIN)
    at = now_ns() + 5_000_000
    timer.arm(at)
    assert poll.poll(30_000)
    assert now_ns() >= at
    timer.clear()
    timer.clear()
    assert not poll.poll(0)
    timer.arm(1)  # long ago
    assert poll.poll(30_000)
    fd = timer.fd
    timer.close()
    assert timer.fd == -1
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
    timer.close()
