"""Every way in which a request can end, end to end through the loop and real sockets: the right status, and no hang."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from drive_servers import (
    DONE,
    END,
    FINISH,
    STREAM,
    Driven,
    Peer,
    RawServer,
    Script,
    answering,
    chunk,
    drive,
    event,
    page,
    reply,
)

from loadgen.arrival import Arrival
from loadgen.backends import RequestOptions
from loadgen.drive.loop import Loop
from loadgen.drive.outcome import Exchange
from loadgen.drive.poll import SlowPoll
from loadgen.drive.sockets import Connection

ONE: dict[str, Any] = {"concurrency": 1, "requests": 1}


def once(*pieces: bytes, then: str = "wait") -> Script:
    """Answers one request with these pieces; then waits for the client to go, closes, or resets."""

    def script(peer: Peer) -> None:
        peer.request()
        peer.send(*pieces)
        if then == "wait":
            peer.until_gone()
        elif then == "reset":
            time.sleep(0.05)  # so that the bytes before are read before the cut is
            peer.reset()

    return script


def ask(script: Script, **fields: Any) -> Driven:
    """One request to a server with this script."""
    shape = {**ONE, **fields.pop("shape", {})}
    with RawServer(script) as server:
        return drive(server.url, shape, **fields)


def test_a_good_reply_is_recorded_with_its_arrivals_in_order() -> None:
    record = ask(answering(STREAM, event(" a"), event(" b"), event(" c"), FINISH, DONE, END, gap=0.005)).only
    assert (record.status, record.err, record.http, record.finish) == ("ok", None, 200, "stop")
    assert len(record.chunk_us) == 3
    assert record.chunk_us == sorted(record.chunk_us)
    assert record.t_send is not None
    assert record.t_end is not None
    assert record.t_sched <= record.t_send < record.t_end
    assert record.ttft_s == pytest.approx(record.chunk_us[0] / 1e6, abs=1e-6)
    assert record.e2e_s == pytest.approx(record.chunk_us[-1] / 1e6, abs=1e-6)
    assert (record.clock, record.endpoint.startswith("http://127.0.0.1:")) == ("kernel", True)
    assert record.conn_s is not None
    assert record.conn_s > 0


LAST = reply(1).replace(b"200 OK\r\n", b"200 OK\r\nConnection: close\r\n")
TWO = STREAM + event(" a") + event(" b")
HTML = b"<html><body>\n<h1>Bad Gateway</h1>\n" + b"<p>padding</p>\n" * 400 + b"</body></html>"

ENDINGS: dict[str, tuple[Script, str, str, int]] = {
    # name: script, status, words of the error, token-bearing chunks that were measured
    "cut": (once(TWO, then="close"), "truncated", "closed before the reply was complete", 2),
    "reset": (once(TWO, then="reset"), "reset", "the connection was cut", 2),
    "hangup": (once(then="close"), "reset", "without a reply", 0),
    "half a head": (once(b"HTTP/1.1 200 O", then="close"), "reset", "without a reply", 0),
    "error event": (
        once(TWO + chunk(b'data: {"error":{"message":"out of memory"}}\n\n')),
        "error_event",
        "out of memory",
        2,
    ),
    "error object": (answering(page("200 OK", b'{"error":"no such model"}')), "error_event", "no such model", 0),
    "empty": (answering(STREAM + FINISH + DONE + END), "empty", "no token", 0),
    "no finish": (answering(TWO + END), "truncated", "without a finish reason", 2),
    "429": (answering(page("429 Too Many", b"slow", retry_after="7")), "rate_limited", "429 (Retry-After: 7): slow", 0),
    "401": (answering(page("401 No", b'{"error":"bad key"}')), "http_error", '401: {"error":"bad key"}', 0),
    "500": (answering(page("500 Oops", HTML, content_type="text/html")), "http_error", "500: <html>", 0),
    "204": (answering(b"HTTP/1.1 204 No Content\r\n\r\n"), "http_error", "204", 0),
    "html": (answering(page("200 OK", HTML, content_type="text/html")), "malformed", "HTML", 0),
    "nameless html": (answering(page("200 OK", HTML)), "malformed", "not with a stream of events: <html>", 0),
    "json": (answering(page("200 OK", b'{"choices":[]}')), "malformed", 'not with a stream of events: {"choices"', 0),
    "no http": (once(b"SSH-2.0-OpenSSH_9.2\r\n"), "malformed", "does not speak HTTP/1.1", 0),
    "much that is no http": (once(b"x" * 9000), "malformed", "does not speak HTTP/1.1", 0),
    "endless head": (once(b"HTTP/1.1 200 OK\r\nx: " + b"y" * 70000), "malformed", "head is longer", 0),
    "half json": (once(TWO + chunk(b'data: {"choices":[\n\n')), "malformed", "not what this protocol sends", 2),
    "half json at the end": (answering(TWO + chunk(b'data: {"choices":[') + END), "truncated", "finish reason", 2),
    "a list": (once(TWO + chunk(b"data: [1, 2]\n\n")), "malformed", "not what this protocol sends", 2),
    "null": (once(TWO + chunk(b"data: null\n\n")), "malformed", "not what this protocol sends", 2),
    "a number": (once(TWO + chunk(b"data: 5\n\n")), "malformed", "not what this protocol sends", 2),
    "deep json": (once(TWO + chunk(b"data: " + b"[" * 100_000 + b"\n\n")), "malformed", "not what this protocol", 2),
    "usage of words": (
        once(TWO + chunk(b'data: {"choices":[],"usage":{"completion_tokens":"many"}}\n\n')),
        "malformed",
        "'many' is no number of tokens",
        2,
    ),
    "bad chunk size": (once(TWO + b"zz\r\n"), "malformed", "no hexadecimal number", 2),
    "no utf-8": (
        once(TWO + chunk(b'data: {"choices":[{"delta":{"content":"\xff\xfe"}}]}\n\n')),
        "malformed",
        "utf-8",
        2,
    ),
    "gzip that is none": (
        answering(page("200 OK", b"no gzip", content_encoding="gzip", content_type="text/event-stream")),
        "malformed",
        "gzip",
        0,
    ),
}


@pytest.mark.parametrize("name", ENDINGS)
def test_a_reply_that_goes_wrong_ends_in_its_status_with_what_was_measured(name: str) -> None:
    script, status, words, measured = ENDINGS[name]
    began = time.monotonic()
    record = ask(script, shape={"stall_timeout_s": 0.3}).only
    assert (record.status, len(record.chunk_us)) == (status, measured)
    assert words in (record.err or "")
    assert record.t_end is not None
    assert time.monotonic() - began < 4


@pytest.mark.parametrize(
    ("shape", "pieces", "status", "measured"),
    [
        ({"stall_timeout_s": 0.2}, (TWO,), "stalled", 2),
        ({"stall_timeout_s": 0.2}, (), "stalled", 0),
        ({"stall_timeout_s": 0.2}, (TWO + FINISH + DONE,), "stalled", 2),
        ({"timeout_s": 0.2}, (TWO,), "timeout", 2),
        ({"requests": None, "window_s": 0.05, "drain_s": 0.1}, (TWO,), "cancelled", 2),
    ],
    ids=["in the middle", "from the start", "before the end of the framing", "timeout", "the drain is over"],
)
def test_silence_ends_by_the_clock_that_belongs_to_it(
    shape: dict[str, Any], pieces: tuple[bytes, ...], status: str, measured: int
) -> None:
    record = ask(once(*pieces), shape=shape).only
    assert (record.status, len(record.chunk_us)) == (status, measured)
    assert record.out_tok is None


def test_a_stream_that_drips_for_too_long_times_out_though_it_never_stalls() -> None:
    def drip(peer: Peer) -> None:
        peer.request()
        peer.send(STREAM)
        for _ in range(200):
            peer.send(event(" x"), gap=0.01)

    record = ask(drip, shape={"timeout_s": 0.3, "stall_timeout_s": 0.2}).only
    assert record.status == "timeout"
    assert len(record.chunk_us) > 1


def stop_when_tokens_are_in(at_once: bool) -> Callable[[Loop], None]:
    def stop(loop: Loop) -> None:
        if any(e.reply is not None and e.reply.chunk_ns for e in loop.traffic.active):
            loop.stop(at_once)

    return stop


def test_a_stop_at_once_cancels_what_is_in_flight_and_keeps_what_it_measured() -> None:
    record = ask(once(TWO), during=stop_when_tokens_are_in(at_once=True)).only
    assert (record.status, len(record.chunk_us)) == ("cancelled", 2)


def test_a_stop_that_drains_lets_what_is_in_flight_end() -> None:
    script = answering(STREAM + event(" a"), event(" b"), FINISH, DONE, END, gap=0.03)
    stop = stop_when_tokens_are_in(at_once=False)
    driven = ask(script, shape={"requests": 1000, "concurrency": 2}, during=stop, connections=2)
    assert driven.statuses == {"ok": 2}


def test_an_interrupted_error_stays_the_servers_error() -> None:
    script = once(STREAM + chunk(b'data: {"error":"overloaded"}\n\n'))
    assert ask(script, shape={"stall_timeout_s": 0.2}).only.status == "error_event"


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
    assert driven.loop.traffic.pool.opened == 1


@pytest.mark.parametrize("cut", range(1, 9))
def test_an_end_that_comes_in_parts_is_noticed_and_keeps_the_connection(cut: int) -> None:
    whole = reply(2)
    script = answering(whole[:-cut], whole[-cut:], gap=0.005)
    driven = ask(script, shape={"requests": 5})
    assert driven.statuses == {"ok": 5}
    assert driven.loop.traffic.pool.opened == 1
    late = [(record.t_send or 0) - record.t_sched for record in driven.records[1:]]
    assert min(late) < 0.05  # at once, and not with the next look at everything that is in flight


def test_what_looks_like_an_end_in_a_piece_of_its_own_is_none_in_the_middle_of_a_chunk() -> None:
    comment = chunk(b": 10\r\n\r\n")
    at = comment.index(b"0\r\n\r\n")
    pieces = (STREAM + event(" a"), comment[:at], comment[at : at + 5], comment[at + 5 :] + event(" b") + FINISH + END)
    driven = ask(answering(*pieces, gap=0.02), shape={"requests": 2})
    assert [(record.status, len(record.chunk_us)) for record in driven.records] == [("ok", 2), ("ok", 2)]
    assert driven.loop.traffic.pool.opened == 1


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
    assert driven.loop.traffic.pool.opened == opened


def test_replies_without_chunks_are_read_by_their_length_or_to_the_end_of_the_connection() -> None:
    body = b"".join(line for line in (event(" a"), FINISH) for line in line.split(b"\r\n")[1:2])

    def closing(peer: Peer) -> None:
        peer.request()
        peer.send(b"HTTP/1.0 200 OK\r\n\r\n" + body)

    by_length = ask(answering(page("200 OK", body, content_type="text/event-stream")), shape={"requests": 2})
    to_the_end = ask(closing, shape={"requests": 2})
    assert by_length.statuses == to_the_end.statuses == {"ok": 2}
    assert (by_length.loop.traffic.pool.opened, to_the_end.loop.traffic.pool.opened) == (1, 2)


@pytest.mark.parametrize("gap", [0.0, 0.03])
def test_a_second_reply_that_nobody_asked_for_is_not_taken_for_the_next_one(gap: float) -> None:
    arrival = Arrival(kind="constant", rate_rps=10.0)  # so that a late one comes while the connection is idle
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
    assert driven.loop.traffic.pool.opened == 2


def test_whole_replies_are_timed_to_their_last_byte() -> None:
    body = json.dumps(
        {
            "choices": [{"message": {"content": "hello"}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 4, "completion_tokens": 2},
        }
    ).encode()
    whole = page("200 OK", body, content_type="application/json")
    options = RequestOptions(model="null", stream=False)
    record = ask(answering(whole[:-20], whole[-20:], gap=0.05), options=options).only
    assert (record.status, record.out_tok, record.in_tok, record.ttft_s) == ("ok", 2, 4, None)
    assert record.e2e_s is not None
    assert record.e2e_s > 0.04
    cut = ask(once(whole[:-20], then="close"), options=options).only
    assert (cut.status, cut.e2e_s) == ("truncated", None)
    chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + chunk(body[:9]) + chunk(body[9:]) + END
    assert ask(answering(chunked), options=options).only.status == "ok"
    list_of_one = page("200 OK", b"[1]", content_type="application/json")
    assert ask(answering(list_of_one), options=options).only.status == "malformed"


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
    sends = [record.t_send for record in driven.records]
    assert all(b - a >= 0.099 for a, b in itertools.pairwise(sends) if a is not None and b is not None)


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
        self.recvmsg = self.read

    def read(self, size: int, ancillary: int) -> tuple[bytes, list[Any], int, Any]:
        Endless.reads += 1
        Endless.most = max(Endless.most, Endless.reads)
        if Endless.reads > 1000:
            raise OSError("nobody else has had a turn")
        data = STREAM + b"fffffffff\r\n:" if self.exchange.reply is None else b":" * size
        return data.ljust(size, b":"), [], 0, None


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


def test_a_flood_from_one_server_does_not_keep_the_clock_from_ending_it() -> None:
    def flood(peer: Peer) -> None:
        peer.request()
        peer.send(STREAM)
        block = event(" x") * 2000
        while True:
            peer.send(block)

    record = ask(flood, shape={"timeout_s": 0.4}).only
    assert record.status == "timeout"
    assert len(record.chunk_us) > 2000
