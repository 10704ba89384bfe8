"""Heads, framings and codings of replies, and the bytes of requests: RFC 9112 as far as it is needed, or hostile."""

from __future__ import annotations

import gzip
import zlib

import pytest
from drive_pieces import Fed
from hypothesis import given, settings
from hypothesis import strategies as st

from loadgen.drive.body import Chunked, Gunzip, chunk_size
from loadgen.drive.events import FOREIGN, SEVERAL, Events
from loadgen.drive.http import (
    HEAD_LIMIT,
    MalformedReply,
    parse_endpoint,
    parse_head,
    request_bytes,
    request_head,
)
from loadgen.errors import UsageError

OK = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    ("url", "host", "port", "tls", "prefix", "authority"),
    [
        ("http://10.0.0.1:8000", "10.0.0.1", 8000, False, "", "10.0.0.1:8000"),
        ("http://box", "box", 80, False, "", "box"),
        ("https://api.example.com/v1/", "api.example.com", 443, True, "", "api.example.com"),
        ("https://api.example.com:8443/llm/v1", "api.example.com", 8443, True, "/llm", "api.example.com:8443"),
        ("http://[::1]:9", "::1", 9, False, "", "[::1]:9"),
    ],
)
def test_an_endpoint_is_read_from_its_url(
    url: str, host: str, port: int, tls: bool, prefix: str, authority: str
) -> None:
    found = parse_endpoint(url)
    assert (found.host, found.port, found.tls, found.prefix) == (host, port, tls, prefix)
    assert (found.authority, found.unix) == (authority, None)


@pytest.mark.parametrize("url", ["unix:/run/llm.sock", "unix:///run/llm.sock"])
def test_a_unix_socket_is_an_endpoint(url: str) -> None:
    assert parse_endpoint(url).unix == "/run/llm.sock"


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("localhost:8000", "is no http or https URL"),
        ("ftp://x", "is no http or https URL"),
        ("http://", "is no http or https URL"),
        ("http://x:99999", "is no URL"),
        ("http://[::1", "is no URL"),
        ("http://user:secret@x", "api_key_env"),
    ],
)
def test_a_url_that_cannot_be_used_is_a_sentence_that_hides_its_password(url: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason) as error:
        parse_endpoint(url)
    assert "secret" not in str(error.value)


def test_a_request_is_its_head_its_id_and_its_body() -> None:
    endpoint = parse_endpoint("http://box:8000/llm")
    head = request_head(endpoint, "/v1/chat/completions", {"Authorization": "Bearer é"}, user_agent="me")
    data = request_bytes(head, "run-1", b'{"a":1}')
    first, *fields = data.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
    assert first == "POST /llm/v1/chat/completions HTTP/1.1"
    assert {"host: box:8000", "authorization: Bearer é", "x-request-id: run-1", "content-length: 7"} < set(fields)
    assert "user-agent: me" in fields
    assert data.endswith(b'\r\n\r\n{"a":1}')


@pytest.mark.parametrize("name", ["x\r\nevil", "x:y", "ü"])
def test_a_header_that_would_break_the_request_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="header"):
        request_head(parse_endpoint("http://x"), "/", {name: "1"})
    with pytest.raises(UsageError, match="header"):
        request_head(parse_endpoint("http://x"), "/", {"x": "1\r\ny: 2"})


def test_the_head_says_how_the_body_is_framed() -> None:
    chunked = parse_head(OK + b"Transfer-Encoding: Chunked\r\nContent-Length: 5\r\n\r\n")
    known = parse_head(OK + b"content-length: 5\r\nCONTENT-TYPE: Text/HTML\r\n\r\nhello")
    open_ended = parse_head(OK + b"content-encoding: gzip\r\n\r\n")
    assert chunked is not None
    assert known is not None
    assert open_ended is not None
    assert (chunked.chunked, chunked.length) == (True, None)
    assert (known.chunked, known.length, known.is_html, known.gzip) == (False, 5, True, False)
    assert (open_ended.chunked, open_ended.length, open_ended.gzip) == (False, None, True)


@pytest.mark.parametrize(
    ("data", "keeps"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\nConnection: Close\r\n\r\n", False),
        (b"HTTP/1.0 200 OK\r\n\r\n", False),
        (b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\n\r\n", True),
    ],
)
def test_the_head_says_whether_the_connection_is_kept(data: bytes, keeps: bool) -> None:
    head = parse_head(data)
    assert head is not None
    assert head.keep_alive is keeps


@pytest.mark.parametrize("status", [204, 304])
def test_replies_that_have_no_body_have_none_whatever_their_head_says(status: int) -> None:
    head = parse_head(b"HTTP/1.1 %d X\r\ntransfer-encoding: chunked\r\ncontent-length: 9\r\n\r\n" % status)
    assert head is not None
    assert (head.chunked, head.length) == (False, 0)


def test_heads_before_the_reply_are_passed_over() -> None:
    data = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nlink: x\r\n\r\n" + OK + b"\r\nbody"
    head = parse_head(data)
    assert head is not None
    assert (head.status, data[head.size :]) == (200, b"body")


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0",
        b"HTTP/2 200\r\n\r\n",
        b"\r\n\r\n",
        b"HTTP/1.1\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 099 X\r\n\r\n",
        OK + b"no colon\r\n\r\n",
        OK + b"content-length: five\r\n\r\n",
        OK + b"content-length: -5\r\n\r\n",
        OK + b"content-length: " + b"9" * 5000 + b"\r\n\r\n",
        OK + b"x: " + b"y" * HEAD_LIMIT + b"\r\n\r\n",
        OK + b"x: " + b"y" * HEAD_LIMIT,
        b"HTTP/1.1 100 Continue\r\n\r\n" * 3000,
    ],
)
def test_what_is_no_head_is_malformed_and_never_anything_else(data: bytes) -> None:
    with pytest.raises(MalformedReply):
        parse_head(data)


@settings(max_examples=200, derandomize=True)
@given(st.binary(max_size=80), st.booleans())
def test_any_bytes_are_a_head_or_the_start_of_one_or_malformed(data: bytes, begins: bool) -> None:
    data = (OK + data) if begins else data
    try:
        head = parse_head(data + b"\r\n\r\n")
    except MalformedReply:
        return
    assert head is None or head.status >= 200


def dechunked(data: bytes, size: int) -> tuple[bytes, Chunked]:
    chunked, found = Chunked(), b""
    for at in range(0, len(data), size):
        found += b"".join(chunked.cut(data[at : at + size]))
    return found, chunked


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_chunks_are_put_together_with_extensions_and_trailers_however_they_are_cut(size: int) -> None:
    data = b"5\r\nhello\r\n1;a=b\r\n \r\n0006 ; x\r\nworld!\r\n0\r\nx: 1\r\ny: 2\r\n\r\n"
    found, chunked = dechunked(data, size)
    assert (found, chunked.complete, chunked.surplus) == (b"hello world!", True, False)


def test_what_comes_after_the_last_chunk_is_surplus() -> None:
    found, chunked = dechunked(b"1\r\na\r\n0\r\n\r\nHTTP/1.1 200 OK", 1000)
    assert (found, chunked.complete, chunked.surplus) == (b"a", True, True)


@pytest.mark.parametrize(
    "data",
    [
        b"x\r\n",
        b"\r\n",
        b"-1\r\n",
        b"0x5\r\nhello\r\n",
        b"5_0\r\n",
        b"f" * 16 + b"\r\n",
        b"1\r\nab\r\n",
        b"1;" + b"x" * 20000,
        b"0\r\n" + b"x: 1\r\n" * 20000,
    ],
)
def test_framing_that_is_none_is_malformed(data: bytes) -> None:
    for size in (1, 1000, 1 << 20):
        with pytest.raises(MalformedReply):
            dechunked(data, size)


@pytest.mark.parametrize(("line", "size"), [(b"0", 0), (b"1F", 31), (b"00a", 10), (b"", -1), (b"0x1", -1), (b"+1", -1)])
def test_a_chunk_size_is_hexadecimal_and_nothing_else(line: bytes, size: int) -> None:
    assert chunk_size(line) == size


def test_gzip_is_taken_off_in_parts_and_text_stays_far_below_the_cap() -> None:
    plain = b"".join(b'data: {"choices":[{"delta":{"content":"w%d"}}]}\n\n' % n for n in range(50_000))
    data, gunzip = gzip.compress(plain), Gunzip()
    assert b"".join(gunzip.take(data[at : at + 100]) for at in range(0, len(data), 100)) == plain


@pytest.mark.parametrize("piece", [100, 1 << 20])
def test_a_gzip_bomb_is_refused_before_it_has_grown(piece: int) -> None:
    data, gunzip, grown = gzip.compress(bytes(50_000_000)), Gunzip(), []

    def unzip() -> None:
        for at in range(0, len(data), piece):
            grown.append(len(gunzip.take(data[at : at + piece])))

    with pytest.raises(MalformedReply, match="grows more than 200 times"):
        unzip()
    assert sum(grown) < 11_000_000


def test_a_reply_that_repeats_itself_is_no_bomb() -> None:
    plain = b" word" * 200_000
    assert Gunzip().take(gzip.compress(plain)) == plain


def test_gzip_that_is_none_is_malformed() -> None:
    with pytest.raises(MalformedReply, match="says it is gzip and is not"):
        Gunzip().take(b"hello, world")
    with pytest.raises(MalformedReply, match="says it is gzip and is not"):
        Gunzip().take(zlib.compress(b"hello"))


def events_of(data: bytes, size: int, limit: int = 1000) -> list[tuple[bytes, int]]:
    events, found = Events("sse", limit), []
    for at in range(0, len(data), size):
        found += [(event[0], event[1]) for event in events.take(data[at : at + size])]
    return found


@pytest.mark.parametrize("size", [1, 5, 1000])
def test_events_are_told_from_comments_and_other_fields(size: int) -> None:
    data = b": hello\n\nevent: x\nid: 3\ndata: a\nretry: 5\ndata:b\n\n\n\r\ndata:  c\r\n\r\nunknown: 1\ndata:\n\n"
    assert events_of(data, size) == [(b"a\nb", SEVERAL), (b" c", 6), (b"", 0)]


@pytest.mark.parametrize("line", [b"<html>", b'{"error": 1}', b"retry-after: 5", b"\xef\xbb\xbfdata: x"])
def test_a_body_that_does_not_begin_like_events_is_foreign(line: bytes) -> None:
    assert events_of(line + b"\n", 1000) == [(line, FOREIGN)]


@pytest.mark.parametrize("size", [1, 7, 64, 5000])
@pytest.mark.parametrize("line", [b"data: ", b"data: x\ndata: ", b": "])
def test_an_event_over_the_cap_is_refused_however_it_comes(size: int, line: bytes) -> None:
    with pytest.raises(MalformedReply, match=r"longer than 1000 bytes; raise load\.max_event_bytes"):
        events_of(line + b"y" * 1000 + b"\n\n", size)
    assert len(events_of(b"data: " + b"y" * 900 + b"\n\n" * 2, size)) == 1


def test_many_lines_without_an_end_of_the_event_count_towards_the_cap() -> None:
    with pytest.raises(MalformedReply, match="longer than 1000 bytes"):
        events_of(b"data: x\n" * 1000, 8)


@pytest.mark.parametrize("piece", [1 << 11, 1 << 16, 1 << 24])
def test_an_event_of_ten_megabytes_is_read_if_the_cap_allows_it(piece: int) -> None:
    head = OK + b"transfer-encoding: chunked\r\n\r\n"
    text = b"x" * 10_000_000
    body = b'data: {"choices":[{"delta":{"content":"%b"},"finish_reason":"stop"}]}\n\n' % text
    small = b"".join(b"40\r\n%b\r\n" % body[at : at + 64] for at in range(0, 640_000, 64))
    rest = body[640_000:]
    data = small + b"%x\r\n%b\r\n0\r\n\r\n" % (len(rest), rest)
    pieces = [head, *(data[at : at + piece] for at in range(0, len(data), piece))]
    fed = Fed("openai_chat", limit=11_000_000).feed(pieces)
    assert (fed.error, len(fed.got.said.text()), fed.got.said.finish) == (None, 10_000_000, "stop")
    assert Fed("openai_chat", limit=9_000_000).feed(pieces).error is not None
