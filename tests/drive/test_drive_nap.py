"""A loop naps only while much comes in, and never for long."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
from drive_driver import drive
from drive_servers import END, FINISH, STREAM, RawServer, answering, event

from loadgen import backends
from loadgen.arrival import Arrival
from loadgen.drive.http import parse_head
from loadgen.drive.nap import Nap
from loadgen.drive.outcome import Exchange
from loadgen.drive.reply import Reply
from loadgen.drive.schedule import Send
from loadgen.record import Prompt


def in_flight(ttft_s: float | None) -> Exchange:
    """An exchange whose first token came after so long, or has not come."""
    exchange = Exchange(Send(0, 0, -1), Prompt(source="test", ask_tok=1), "measure")
    exchange.t_send = 1_000_000_000
    head = parse_head(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    assert head is not None
    exchange.reply = Reply(head, backends.load("openai_chat"), True, 1 << 20)
    if ttft_s is not None:
        exchange.reply.chunk_ns.append(exchange.t_send + round(ttft_s * 1e9))
    return exchange


@pytest.mark.parametrize(("ttft_s", "nap_s"), [(0.001, 0.0002), (0.02, 0.0004), (30.0, 0.001), (None, 0.0002)])
def test_a_nap_is_a_fiftieth_of_the_ttft_within_bounds_from_the_first_token_on(
    ttft_s: float | None, nap_s: float
) -> None:
    nap = Nap()
    nap.reads = 10_000
    nap.check([in_flight(None), in_flight(ttft_s)])
    assert nap.s == pytest.approx(nap_s)


def test_a_loop_with_little_to_read_does_not_nap_and_each_check_counts_anew() -> None:
    nap = Nap()
    nap.reads = 10_000
    nap.check([])
    assert nap.s > 0
    nap.reads = 20
    nap.check([])
    assert nap.s == 0


def test_replies_that_end_move_the_length_of_a_nap() -> None:
    nap = Nap()
    for _ in range(100):
        nap.learn(0.03)
    nap.reads = 10_000
    nap.check([in_flight(0.01)])
    assert nap.s == pytest.approx(0.0006, rel=0.01)


def test_no_nap_reaches_into_a_send_that_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sends come every 10 ms, and naps are 20 ms long: there is none before the last send, and some after it."""
    naps: list[int] = []
    monkeypatch.setattr("loadgen.drive.loop.time", SimpleNamespace(sleep=lambda _: naps.append(time.monotonic_ns())))
    monkeypatch.setattr(Nap, "check", lambda self, active: setattr(self, "s", 0.02))
    arrival = Arrival(kind="timestamps", timestamps=tuple(n / 100 for n in range(30)))
    with RawServer(answering(STREAM + event(" a"), FINISH + END, gap=0.2)) as server:
        driven = drive(server.url, {"arrival": arrival, "window_s": 0.5}, connections=30)
    assert driven.statuses == {"ok": 30}
    assert naps
    assert min(naps) >= driven.loop.start + 290_000_000
