"""The one request before a load: it goes over the driver's own sockets, and what goes wrong is a sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from drive_certificate import needs_openssl, tls_of
from drive_servers import Peer, RawServer, Script, answering, chunk, page

from loadgen import backends
from loadgen.backends import RequestOptions
from loadgen.drive.http import parse_endpoint
from loadgen.drive.once import ask_once
from loadgen.errors import TargetError
from loadgen.jobs import Site
from loadgen.probe import probe

MESSAGE = {"role": "assistant", "content": "x"}
GOOD = json.dumps({"choices": [{"message": MESSAGE, "finish_reason": "stop"}], "usage": {"completion_tokens": 1}})
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
UNTIL_CLOSED = b"HTTP/1.1 200 OK\r\n\r\n"
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n"


def site_of(url: str, **fields: Any) -> Site:
    return Site(url=url, backend="openai_chat", options=RequestOptions(model="null"), headers={}, **fields)


def once(*pieces: bytes) -> Script:
    """Answers one request with these pieces, a moment apart, and closes."""

    def script(peer: Peer) -> None:
        peer.request()
        peer.send(*pieces, gap=0.005)

    return script


def ask(url: str, timeout_s: float = 5.0) -> bytes:
    return bytes(ask_once(parse_endpoint(url), HEAD + b"{}", backends.load("openai_chat"), 5.0, timeout_s).body)


@pytest.mark.parametrize(
    "pieces",
    [
        [page("200 OK", GOOD.encode())],
        [bytes([byte]) for byte in page("200 OK", b"{}")] + [b""],
        [b"HTTP/1.1 100 Continue\r\n\r\n", page("200 OK", GOOD.encode())],
        [CHUNKED, chunk(GOOD[:9].encode()), chunk(GOOD[9:].encode()), b"0\r\n\r\n"],
        [UNTIL_CLOSED, GOOD[:5].encode(), GOOD[5:].encode()],
    ],
)
def test_a_whole_reply_comes_back_however_it_is_framed_and_cut(pieces: list[bytes]) -> None:
    with RawServer(once(*pieces)) as server:
        assert ask(server.url).decode() in (GOOD, "{}")


@pytest.mark.parametrize("pieces", [[b"HTTP/1.1 200 OK\r\nconte"], [CHUNKED, chunk(b"{")], []])
def test_a_reply_that_is_cut_is_no_reply(pieces: list[bytes]) -> None:
    with RawServer(once(*pieces)) as server, pytest.raises(ConnectionResetError):
        ask(server.url)


def test_a_server_that_says_nothing_is_waited_for_only_so_long() -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.until_gone()

    with RawServer(script) as server, pytest.raises(TimeoutError, match=r"no whole reply within 0\.1 s"):
        ask(server.url, timeout_s=0.1)


def test_a_request_that_is_larger_than_the_sockets_buffers_arrives_whole() -> None:
    got: list[int] = []

    def script(peer: Peer) -> None:
        got.append(len(peer.request()[1]))
        peer.send(page("200 OK", b"{}"))

    body = b"x" * (8 << 20)
    with RawServer(script) as server:
        data = HEAD.replace(b": 2", f": {len(body)}".encode()) + body
        ask_once(parse_endpoint(server.url), data, backends.load("openai_chat"), 5.0, 30.0)
    assert got == [len(body)]


@needs_openssl
def test_the_probe_goes_through_tls_and_unix_sockets_as_the_load_does(
    certificate: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    answer = answering(page("200 OK", GOOD.encode()))
    with RawServer(answer, tls=tls_of(certificate)) as server:
        probe("a", site_of(server.url), 5.0)
    with RawServer(answer, unix=str(tmp_path / "s")) as server:
        probe("a", site_of(server.url), 5.0)


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (page("401 Unauthorized", b"no key"), "answers HTTP 401: no key; give the name of the environment variable"),
        (page("404 Not Found", b"\x1b[31mno\x1b[0m"), r"answers HTTP 404:  \[31mno \[0m; check the endpoint's path"),
        (page("307 Temporary Redirect", b"", location="http://127.0.0.1:1/"), r"answers HTTP 307: \(an empty body\)"),
        (page("200 OK", b"<html>", content_type="text/html"), "answers 200 with HTML instead of openai_chat: <html>"),
        (page("200 OK", b'{"a": 1}'), "answers 200 with something else instead of openai_chat"),
        (page("200 OK", b"[" * 200_000), r"answers 200 with something else instead of openai_chat: \[\[\["),
        (page("200 OK", b'{"error": {"message": "broken"}}'), "broken"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "does not answer as an HTTP server"),
        (b"", "cannot be reached: the server closed the connection"),
    ],
)
def test_what_is_wrong_with_an_endpoint_is_a_sentence_that_says_what_to_do(answer: bytes, sentence: str) -> None:
    with (
        RawServer(once(answer)) as server,
        pytest.raises(TargetError, match=rf"target a: {server.url}/v1/chat.*{sentence}"),
    ):
        probe("a", site_of(server.url), 5.0)
