"""Connections under a load: where a reply ends, who keeps the connection, what a failure costs the others."""

from __future__ import annotations

import itertools
import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from drive_driver import ONE, ask, drive, once
from drive_servers import END, FINISH, LAST, STREAM, TWO, Peer, RawServer, answering, chunk, event, page, reply

from loadgen.arrival import Arrival
from loadgen.drive.loop import Loop
from loadgen.drive.outcome import Exchange
from loadgen.drive.poll import SlowPoll
from loadgen.drive.sockets import Connection
from loadgen.drive.traffic import Traffic


def test_a_page_that_holds_what_looks_like_its_end_is_read_to_its_end() -> None:
    def script(peer: Peer) -> None:
        answer = b"HTTP/1.1 500 Oops\r\ntransfer-encoding: chunked\r\n\r\n" + chunk(b"first\r\n0\r\n\r\nlast---") + END
        cut = answer.index(b"last")
        while True:
            peer.request()
            peer.send(answer[:cut], answer[cut:], gap=0.05)

    driven = ask(script, shape={"requests": 2})
    assert [record.status for record in driven.records] == ["http_error", "http_error"]
    assert all("last---" in (record.err or "") for record in driven.records)
    assert driven.loop.traffic.pools.opened == 1


@pytest.mark.parametrize("cut", range(1, 9))
def test_an_end_that_comes_in_parts_is_noticed_and_keeps_the_connection(cut: int) -> None:
    whole = reply(2)
    script = answering(whole[:-cut], whole[-cut:], gap=0.005)
    driven = ask(script, shape={"requests": 5})
    assert driven.statuses == {"ok": 5}
    assert driven.loop.traffic.pools.opened == 1
    late = [(record.t_send or 0) - record.t_sched for record in driven.records[1:]]
    assert min(late) < 0.05  # at once, and not with the next look at everything that is in flight


def test_what_looks_like_an_end_in_a_piece_of_its_own_is_none_in_the_middle_of_a_chunk() -> None:
    comment = chunk(b": 10\r\n\r\n")
    at = comment.index(b"0\r\n\r\n")
    pieces = (STREAM + event(" a"), comment[:at], comment[at : at + 5], comment[at + 5 :] + event(" b") + FINISH + END)
    driven = ask(answering(*pieces, gap=0.02), shape={"requests": 2})
    assert [(record.status, len(record.chunk_us)) for record in driven.records] == [("ok", 2), ("ok", 2)]
    assert driven.loop.traffic.pools.opened == 1


def test_an_end_that_comes_byte_by_byte_is_noticed() -> None:
    whole = reply(1)
    driven = ask(answering(whole[:-9], *(bytes([byte]) for byte in whole[-9:]), gap=0.003))
    assert driven.statuses == {"ok": 1}


@pytest.mark.parametrize(
    ("answer", "opened"),
    [
        (TWO + FINISH + b"0\r\nx-checksum: 1\r\n\r\n", 1),
        (TWO + FINISH + b"0;last\r\n\r\n", 1),
        (LAST, 3),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + reply(2), 1),
    ],
    ids=["trailer", "extension of the last chunk", "connection: close", "100 first"],
)
def test_unusual_framing_is_read_and_the_connection_kept_where_it_may_be(answer: bytes, opened: int) -> None:
    driven = ask(answering(answer), shape={"requests": 3})
    assert driven.statuses == {"ok": 3}
    assert driven.loop.traffic.pools.opened == opened


def test_replies_without_chunks_are_read_by_their_length_or_to_the_end_of_the_connection() -> None:
    body = b"".join(line for line in (event(" a"), FINISH) for line in line.split(b"\r\n")[1:2])

    def closing(peer: Peer) -> None:
        peer.request()
        peer.send(b"HTTP/1.0 200 OK\r\n\r\n" + body)

    by_length = ask(answering(page("200 OK", body, content_type="text/event-stream")), shape={"requests": 2})
    to_the_end = ask(closing, shape={"requests": 2})
    assert by_length.statuses == to_the_end.statuses == {"ok": 2}
    assert (by_length.loop.traffic.pools.opened, to_the_end.loop.traffic.pools.opened) == (1, 2)


@pytest.mark.parametrize("gap", [0.0, 0.03])
def test_a_second_reply_that_nobody_asked_for_is_not_taken_for_the_next_one(gap: float) -> None:
    arrival = Arrival(kind="constant", rate_rps=2.0 if gap else 10.0)  # a late one comes while the connection is idle
    shape = {"requests": 3, "concurrency": None, "arrival": arrival}
    pieces = (reply(2), reply(9)) if gap else (reply(2) + reply(9),)
    driven = ask(answering(*pieces, gap=gap), shape=shape)
    assert driven.statuses == {"ok": 3}
    assert [len(record.chunk_us) for record in driven.records] == [2, 2, 2]


def test_bytes_after_a_known_length_close_the_connection_and_spoil_nothing() -> None:
    body = b'data: {"choices":[{"delta":{"content":"a"},"finish_reason":"stop"}]}\n\n'
    answer = page("200 OK", body) + b"HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n"
    driven = ask(once(answer), shape={"requests": 2})
    assert driven.statuses == {"ok": 2}
    assert driven.loop.traffic.pools.opened == 2


def test_a_server_that_is_gone_ends_in_connect_error() -> None:
    servers: list[RawServer] = []

    def script(peer: Peer) -> None:
        peer.request()
        servers[0].stop_listening()
        peer.send(LAST)

    with RawServer(script) as server:
        servers.append(server)
        driven = drive(server.url, {"concurrency": 1, "requests": 2})
    assert [record.status for record in driven.records] == ["ok", "connect_error"]
    refused = driven.records[1]
    assert "Connection refused" in (refused.err or "")
    assert (refused.t_send, refused.http, refused.clock) == (None, None, None)


def test_a_server_that_was_never_there_is_an_error_before_the_start() -> None:
    with RawServer(answering(reply())) as server:
        server.stop_listening()
        with pytest.raises(ConnectionRefusedError):
            drive(server.url, ONE)


def test_requests_over_the_cap_are_dropped_and_counted_and_never_sent() -> None:
    seen = []

    def slow(peer: Peer) -> None:
        seen.append(peer.request())
        peer.send(STREAM, event(" a"), gap=0.1)
        peer.send(FINISH + END)

    arrival = {"arrival": Arrival(kind="burst", count=5), "max_in_flight": 2, "requests": None, "concurrency": None}
    driven = ask(slow, shape=arrival, connections=2)
    assert driven.statuses == {"ok": 2, "dropped": 3}
    assert len(seen) == 2
    dropped = [record for record in driven.records if record.status == "dropped"]
    assert {(record.t_send, record.clock) for record in dropped} == {(None, None)}
    assert "load.max_in_flight = 2" in (dropped[0].err or "")
    assert driven.loop.tally.dropped == 3


def test_a_failed_slot_is_one_slot_still() -> None:
    """A slot whose request failed in the middle of a read must not be counted as free twice."""
    lock, most, now = threading.Lock(), [0], [0]

    def script(peer: Peer) -> None:
        peer.request()
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.002)
        with lock:
            now[0] -= 1
        peer.send(b"x" * 5000 if peer.number <= 4 else LAST)  # connection 0 is the one that finds the address
        peer.until_gone()

    driven = ask(script, shape={"requests": 30, "concurrency": 2})
    assert len(driven.records) == 30
    assert driven.statuses["malformed"] == 4
    assert most[0] <= 2


def test_a_slot_that_failed_waits_before_it_tries_again() -> None:
    driven = ask(answering(page("503 Busy", b"")), shape={"requests": 3})
    due = [record.t_sched for record in driven.records]
    assert all(b - a >= 0.0999 for a, b in itertools.pairwise(due))
    assert all((record.t_send or 0) >= record.t_sched for record in driven.records)


@pytest.mark.parametrize("then", ["reset", "answer"])
def test_a_server_that_does_not_take_the_whole_request_fails_that_request_alone(tmp_path: Path, then: str) -> None:
    prompts = tmp_path / "long.jsonl"
    prompts.write_text(json.dumps({"prompt": "long " * 1_500_000}))

    def script(peer: Peer) -> None:
        peer.request(read_body=False)
        if then == "answer":
            peer.send(page("413 Too Large", b"too long"))
            time.sleep(0.3)
        peer.reset()

    fields = {"workload": "jsonl", "settings": {"path": str(prompts)}}
    driven = ask(script, shape={"requests": 2}, **fields)
    assert driven.statuses == {"http_error" if then == "answer" else "reset": 2}


def test_a_long_request_arrives_whole_though_the_server_takes_it_in_parts(tmp_path: Path) -> None:
    prompts = tmp_path / "long.jsonl"
    prompts.write_text(json.dumps({"prompt": "long " * 1_500_000}))
    bodies = []

    def script(peer: Peer) -> None:
        while True:
            time.sleep(0.05)
            bodies.append(peer.request()[1])
            peer.send(reply(1))

    driven = ask(script, shape={"requests": 2}, workload="jsonl", settings={"path": str(prompts)})
    assert driven.statuses == {"ok": 2}
    assert [json.loads(body)["messages"][0]["content"] for body in bodies] == ["long " * 1_500_000] * 2


class Endless(Connection):
    """A connection on which there is always more: the reads since the last poll are counted."""

    reads = 0
    most = 0

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.receive = self.read

    def read(self, size: int) -> tuple[bytes, bytes, int]:
        Endless.reads += 1
        Endless.most = max(Endless.most, Endless.reads)
        if Endless.reads > 1000:
            raise OSError("nobody else has had a turn")
        data = STREAM + b"fffffffff\r\n:" if self.exchange.reply is None else b":" * size
        return data.ljust(size, b":"), b"", time.monotonic_ns()


class Turns(SlowPoll):
    """A poll that begins a new count."""

    def poll(self, wait: float) -> list[tuple[int, int]]:
        Endless.reads = 0
        return super().poll(wait)


def test_a_server_that_always_has_more_does_not_keep_the_others_from_their_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("loadgen.drive.pool.Connection", Endless)
    monkeypatch.setattr("loadgen.drive.traffic.make_poll", Turns)
    record = ask(once(STREAM), shape={"timeout_s": 0.2}).only
    assert record.status in ("timeout", "malformed")  # by the clock, or when all those bytes were looked at
    assert 1 < Endless.most < 100


def test_a_client_that_is_behind_its_schedule_goes_on_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    made = [0]
    between = []

    class Looks(SlowPoll):
        def poll(self, wait: float) -> list[tuple[int, int]]:
            between.append(made[0])
            made[0] = 0
            return super().poll(wait)

    def counted(*args: Any) -> Exchange:
        made[0] += 1
        return Exchange(*args)

    monkeypatch.setattr("loadgen.drive.traffic.make_poll", Looks)
    monkeypatch.setattr("loadgen.drive.loop.Exchange", counted)
    arrival = Arrival(kind="burst", count=500)
    shape = {"concurrency": None, "requests": None, "arrival": arrival, "max_in_flight": 4}
    driven = ask(answering(reply(1)), shape=shape, connections=4)
    assert len(driven.records) == 500
    assert max(between) <= 64


def test_a_free_slot_sends_before_the_reply_that_freed_it_is_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    """To take a reply apart and to write its record takes half a millisecond, by which the next send would be late."""
    order: list[str] = []
    dispatch, record = Traffic.dispatch, Loop._record

    def sends(traffic: Traffic, exchange: Exchange, data: bytes, now: int) -> None:
        order.append(f"send {exchange.send.session}")
        dispatch(traffic, exchange, data, now)

    def records(loop: Loop, exchange: Exchange) -> None:
        order.append(f"record {exchange.send.session}")
        record(loop, exchange)

    monkeypatch.setattr(Traffic, "dispatch", sends)
    monkeypatch.setattr(Loop, "_record", records)
    driven = ask(answering(reply(2)), shape={"requests": 3})
    assert driven.statuses == {"ok": 3}
    assert all(order.index(f"send {n + 1}") < order.index(f"record {n}") for n in range(2)), order


def test_a_repeat_is_over_when_its_last_record_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """One more look at the sockets, where nothing can come any more, would last a tenth of a second."""
    order: list[str] = []
    step, record = Traffic.step, Loop._record

    def looks(traffic: Traffic, wait: float) -> int:
        order.append("look")
        return step(traffic, wait)

    def records(loop: Loop, exchange: Exchange) -> None:
        order.append("record")
        record(loop, exchange)

    monkeypatch.setattr(Traffic, "step", looks)
    monkeypatch.setattr(Loop, "_record", records)
    ask(answering(reply(2)), shape={"requests": 3})
    assert order.count("record") == 3
    assert order[-1] == "record"


def test_a_flood_from_one_server_does_not_keep_the_clock_from_ending_it() -> None:
    def flood(peer: Peer) -> None:
        peer.request()
        peer.send(STREAM)
        block = event(" x") * 2000
        while True:
            peer.send(block)

    record = ask(flood, shape={"timeout_s": 1.0}).only
    assert record.status == "timeout"
    assert len(record.chunk_us) > 2000


def test_what_was_over_time_before_the_drain_ended_timed_out_even_if_the_loop_was_late_to_see_both() -> None:
    late = iter([0.8])

    def during(loop: Loop) -> None:
        time.sleep(next(late, 0.0))

    record = ask(once(STREAM, event(" a")), shape={"timeout_s": 0.3, "drain_s": 0.6}, during=during).only
    assert record.status == "timeout"


def test_a_request_of_the_warm_up_may_ask_for_a_shorter_reply() -> None:
    asked = []

    def script(peer: Peer) -> None:
        while True:
            asked.append(json.loads(peer.request()[1])["max_tokens"])
            time.sleep(0.02)
            peer.send(reply(1))

    driven = ask(script, shape={"warmup_s": 0.4, "warmup_tokens": 2, "requests": 2})
    phases = [record.phase for record in driven.records]
    assert phases[-2:] == ["measure", "measure"]
    assert {*phases[:-2]} == {"warmup"}
    assert [record.ask_tok for record in driven.records] == asked
    assert asked == [2] * len(phases[:-2]) + [3, 3]


def test_what_has_come_while_the_client_was_held_up_is_no_silence_of_the_servers() -> None:
    held = iter([1.0])

    def during(loop: Loop) -> None:
        if any(exchange.reply is not None for exchange in loop.traffic.active):
            time.sleep(next(held, 0.0))

    whole = (STREAM, event(" a"), event(" b"), FINISH + END)
    record = ask(answering(*whole, gap=0.1), shape={"stall_timeout_s": 0.7}, during=during).only
    assert (record.status, len(record.chunk_us)) == ("ok", 2)
