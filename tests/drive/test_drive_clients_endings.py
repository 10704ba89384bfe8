"""However a reply goes wrong, it has one name: that of our own driver, whichever client carried it."""

from __future__ import annotations

import gc
import gzip
import json
import zlib
from typing import Any

import pytest
from drive_clients import CLIENTS, ask_by
from drive_driver import once
from drive_servers import DONE, END, FINISH, STREAM, TWO, Peer, Script, answering, chunk, event, page
from test_drive_endings import ENDINGS

from loadgen.backends import RequestOptions

THEIRS: dict[str, tuple[str, str]] = {
    # h11 says nothing of a head before its end, up to 100 KiB
    "no http": ("stalled", "no byte"),
    "much that is no http": ("stalled", "no byte"),
    "endless head": ("stalled", "no byte"),
    "bad chunk size": ("malformed", "illegal chunk header"),
}
"""Where the words, or even the name, are the library's own."""


@pytest.mark.parametrize("driver", CLIENTS)
@pytest.mark.parametrize("name", ENDINGS)
def test_a_reply_that_goes_wrong_ends_in_its_status_with_every_client(driver: str, name: str) -> None:
    script, status, words, measured = ENDINGS[name]
    status, words = THEIRS.get(name, (status, words))
    (record,) = ask_by(driver, script, {"stall_timeout_s": 0.7})
    assert (record.status, len(record.chunk_us)) == (status, measured), record.err
    assert words in (record.err or "")


LIMIT = 100_000
LONG = "x" * 3 * LIMIT  # more than a client reads at a time


def pouring(start: bytes, piece: bytes) -> Script:
    """Answers with a start and then with the same piece for ever, as fast as the client takes it."""

    def script(peer: Peer) -> None:
        peer.request()
        peer.send(start)
        while True:
            peer.send(piece)

    return script


PAGE = b"HTTP/1.1 %b\r\ncontent-type: %b\r\ntransfer-encoding: chunked\r\n\r\n"
HOSTILE: dict[str, tuple[Script, str, bool]] = {
    # name: script, words of the error, streamed
    "an event without end": (pouring(TWO + chunk(b'data: {"x":"'), chunk(b"x" * 4096)), "an event is longer", True),
    "an event of many lines": (pouring(TWO, chunk(b"data: " + b"x" * 999 + b"\n")), "an event is longer", True),
    "a comment without end": (pouring(TWO + chunk(b": "), chunk(b"x" * 4096)), "an event is longer", True),
    "one long event": (answering(TWO + event(LONG) + FINISH + DONE + END), "an event is longer", True),
    "an endless error": (pouring(PAGE % (b"500 No", b"text/plain"), chunk(b"x" * 4096)), "the reply is longer", True),
    "endless html": (pouring(PAGE % (b"200 OK", b"text/html"), chunk(b"x" * 4096)), "the reply is longer", True),
    "an endless whole reply": (
        pouring(PAGE % (b"200 OK", b"application/json"), chunk(b"x" * 4096)),
        "the reply is longer",
        False,
    ),
}


@pytest.mark.parametrize("driver", CLIENTS)
@pytest.mark.parametrize("name", HOSTILE)
def test_a_server_that_never_ends_an_event_is_malformed_at_the_limit(driver: str, name: str) -> None:
    script, words, stream = HOSTILE[name]
    options = RequestOptions(model="null", stream=stream)
    (record,) = ask_by(driver, script, {"max_event_bytes": LIMIT}, options=options)
    assert record.status == "malformed", record.err
    assert f"{words} than {LIMIT} bytes; raise load.max_event_bytes" in (record.err or "")


def zipped(body: bytes) -> bytes:
    return page("200 OK", gzip.compress(body), content_type="text/event-stream", content_encoding="gzip")


def unchunked(reply: bytes) -> bytes:
    """The events of a reply, without head and framing."""
    return b"".join(line + b"\n\n" for line in reply.split(b"\r\n") if line.startswith(b"data:")).replace(
        b"\n" * 4, b"\n\n"
    )


@pytest.mark.parametrize("driver", CLIENTS)
def test_gzip_is_taken_off_and_a_bomb_is_refused(driver: str) -> None:
    (record,) = ask_by(driver, answering(zipped(unchunked(TWO + FINISH + DONE))))
    assert (record.status, len(record.chunk_us), record.finish) == ("ok", 2, "stop"), record.err
    bomb = zlib.compressobj(9, wbits=31)
    packed = b"".join([bomb.compress(b": " + b"\n" * (1 << 20)) for _ in range(64)]) + bomb.flush()
    head = {"content_type": "text/event-stream", "content_encoding": "gzip"}
    (record,) = ask_by(driver, answering(page("200 OK", packed, **head)))
    assert (record.status, record.err) == ("malformed", "a gzip body grows more than 200 times")


@pytest.mark.parametrize("driver", CLIENTS)
def test_a_coding_that_was_not_asked_for_is_malformed(driver: str) -> None:
    packed = zlib.compress(unchunked(TWO + FINISH + DONE))
    head = {"content_type": "text/event-stream", "content_encoding": "deflate"}
    (record,) = ask_by(driver, answering(page("200 OK", packed, **head)))
    assert record.status in ("malformed", "truncated"), record.err


@pytest.mark.parametrize("driver", CLIENTS)
@pytest.mark.parametrize(
    ("rest", "status", "usage"),
    [
        (FINISH + END, "ok", None),  # no [DONE], but a reason to end
        (DONE + END, "ok", None),  # no reason, but [DONE]
        (event(finish_reason="abort") + DONE + END, "ok", None),  # a reason that no specification has
        (FINISH + chunk(b'data: {"choices":[],"usage":{"completion_tokens":2}}\n\n') + DONE + END, "ok", 2),
        (END, "truncated", None),
    ],
    ids=["no done", "no finish", "strange finish", "usage", "neither"],
)
def test_a_stream_is_whole_by_its_finish_reason_or_its_end_marker(
    driver: str, rest: bytes, status: str, usage: int | None
) -> None:
    (record,) = ask_by(driver, answering(TWO + rest))
    assert (record.status, record.out_tok, len(record.chunk_us)) == (status, usage, 2), record.err


@pytest.mark.parametrize("driver", CLIENTS)
def test_a_cut_behind_the_end_marker_is_a_cut(driver: str) -> None:
    (record,) = ask_by(driver, once(TWO + FINISH + DONE, then="close"))
    assert record.status == "truncated", record.err


@pytest.mark.parametrize("driver", CLIENTS)
def test_separators_that_json_may_hold_do_not_end_a_line(driver: str) -> None:
    text = "a\u2028b\x85c\u2029"
    raw = json.dumps({"choices": [{"index": 0, "delta": {"content": text}}]}, ensure_ascii=False).encode()
    script = answering(STREAM + chunk(b"data: " + raw + b"\n\n") + FINISH + DONE + END)
    (record,) = ask_by(driver, script, save_text=True)
    assert (record.status, record.text) == ("ok", text), record.err


@pytest.mark.parametrize("driver", CLIENTS)
def test_comments_while_nothing_else_comes_are_no_stall(driver: str) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.send(STREAM)
        peer.send(*[chunk(b": still here\n\n")] * 16, gap=0.1)
        peer.send(event(" a") + FINISH + DONE + END)

    (record,) = ask_by(driver, script, {"stall_timeout_s": 0.8})
    assert (record.status, len(record.chunk_us)) == ("ok", 1), record.err


@pytest.mark.parametrize("driver", CLIENTS)
def test_silence_ends_by_the_clock_that_belongs_to_it_with_every_client(driver: str) -> None:
    shapes: list[tuple[dict[str, Any], str]] = [({"stall_timeout_s": 0.4}, "stalled"), ({"timeout_s": 0.4}, "timeout")]
    for shape, status in shapes:
        (record,) = ask_by(driver, once(TWO), shape)
        assert (record.status, len(record.chunk_us)) == (status, 2), record.err


@pytest.mark.parametrize("driver", CLIENTS)
def test_whole_replies_are_judged_by_their_bytes(driver: str) -> None:
    options = RequestOptions(model="null", stream=False)
    good = b'{"choices":[{"message":{"content":"x"},"finish_reason":"stop"}],"usage":{"completion_tokens":1}}'
    for body, status in (
        (good, "ok"),
        (b"[1]", "malformed"),
        (b'{"error":"none"}', "error_event"),
        (b"{", "malformed"),
    ):
        reply = page("200 OK", body, content_type="application/json")
        (record,) = ask_by(driver, answering(reply), options=options)
        assert record.status == status, record.err
        (record,) = ask_by(driver, once(reply[:-1], then="close"), options=options)
        assert record.status == "truncated", record.err


@pytest.mark.parametrize("driver", CLIENTS)
def test_a_request_leaves_nothing_behind_that_only_the_collector_finds(driver: str) -> None:
    """A worker does not collect while it measures."""
    left = []
    script = answering(TWO + FINISH + DONE + END)
    ask_by(driver, script)
    gc.collect()
    gc.disable()
    try:
        for requests in (5, 55):
            ask_by(driver, script, {"requests": requests})
            left.append(gc.collect())
    finally:
        gc.enable()
    assert left[1] - left[0] < 50  # less than an object a request
