"""Every way in which a request can end, end to end through the loop and real sockets: the right status, and no hang."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

import pytest
from drive_driver import ask, once
from drive_servers import DONE, END, FINISH, STREAM, TWO, Peer, Script, answering, chunk, event, page

from loadgen.backends import RequestOptions
from loadgen.drive.loop import Loop


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
    record = ask(script, shape={"stall_timeout_s": 1.0}).only  # a hang would be a stall
    assert (record.status, len(record.chunk_us)) == (status, measured)
    assert words in (record.err or "")
    assert record.t_end is not None


@pytest.mark.parametrize(
    ("shape", "pieces", "status", "measured"),
    [
        ({"stall_timeout_s": 0.5}, (TWO,), "stalled", 2),
        ({"stall_timeout_s": 0.2}, (), "stalled", 0),
        ({"stall_timeout_s": 0.5}, (TWO + FINISH + DONE,), "stalled", 2),
        ({"timeout_s": 0.5}, (TWO,), "timeout", 2),
        ({"requests": None, "window_s": 0.05, "drain_s": 0.5}, (TWO,), "cancelled", 2),
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
        while True:
            peer.send(event(" x"), gap=0.01)

    record = ask(drip, shape={"timeout_s": 1.4, "stall_timeout_s": 0.9}).only
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
    stopped = threading.Event()
    stop = stop_when_tokens_are_in(at_once=False)

    def script(peer: Peer) -> None:
        while True:
            peer.request()
            peer.send(STREAM + event(" a"))
            assert stopped.wait(10)
            peer.send(event(" b"), FINISH, DONE, END, gap=0.01)

    def look(loop: Loop) -> None:
        stop(loop)
        if loop.stopping:
            stopped.set()

    driven = ask(script, shape={"requests": 1000, "concurrency": 2}, during=look, connections=2)
    assert driven.statuses == {"ok": 2}


def test_an_interrupted_error_stays_the_servers_error() -> None:
    script = once(STREAM + chunk(b'data: {"error":"overloaded"}\n\n'))
    assert ask(script, shape={"stall_timeout_s": 0.2}).only.status == "error_event"


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


@pytest.mark.parametrize("name", ["empty", "no finish", "nameless html", "error object"])
def test_a_server_whose_replies_are_all_bad_is_not_hammered(name: str) -> None:
    """Each looks like a reply until it is understood, and a slot that went on at once would send thousands a second."""
    script, status, _, _ = ENDINGS[name]
    driven = ask(script, shape={"requests": None, "concurrency": 2, "window_s": 0.5})
    assert set(driven.statuses) == {status}
    assert 2 <= driven.statuses.total() <= 21 + 2 + 2 * 6  # until they are known to be bad, in flight then, 10/s a slot
