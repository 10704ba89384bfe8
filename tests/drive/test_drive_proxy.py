"""A proxy between the driver and the endpoint: asked for by the scenario, and by nothing else."""

from __future__ import annotations

import base64
import contextlib
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from drive_certificate import needs_openssl, tls_of
from drive_driver import drive
from drive_servers import Peer, RawServer, answering, page, reply

from loadgen.drive.http import parse_endpoint
from loadgen.errors import UsageError

TWO = {"concurrency": 1, "requests": 2}


def pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


class Tunnels:
    """A proxy that opens tunnels; ``asked`` holds the heads of the requests for them."""

    def __init__(self, port: int, greeting: bytes = b"HTTP/1.1 200 Connection established\r\n\r\n") -> None:
        self.port = port
        self.greeting = greeting
        self.asked: list[bytes] = []

    def __call__(self, peer: Peer) -> None:
        head, _ = peer.request(read_body=False)
        self.asked.append(head)
        for byte in self.greeting:  # in as many reads as there are bytes
            peer.send(bytes([byte]))
        if b" 200 " not in self.greeting:
            return
        with socket.create_connection(("127.0.0.1", self.port)) as there:
            back = threading.Thread(target=pump, args=(there, peer.sock))
            back.start()
            pump(peer.sock, there)
            back.join()


@pytest.fixture
def https(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RawServer]:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with RawServer(answering(reply(3)), tls=tls_of(certificate)) as server:
        yield server


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


def test_a_plain_request_is_sent_to_the_proxy_with_its_whole_url() -> None:
    heads: list[bytes] = []

    def proxy(peer: Peer) -> None:
        while True:
            heads.append(peer.request()[0])
            peer.send(reply(3))

    with RawServer(proxy) as server:
        url = server.url.replace("http://", "http://me:p%40ss@")
        driven = drive("http://endpoint.invalid:8000/llm", TWO, proxy=url)
    assert driven.statuses == {"ok": 2}
    for head in heads:
        assert head.startswith(b"POST http://endpoint.invalid:8000/llm/v1/chat/completions HTTP/1.1\r\n")
        assert b"\r\nhost: endpoint.invalid:8000\r\n" in head
        key = re.search(rb"proxy-authorization: Basic (\S+)", head)
        assert key is not None
        assert base64.b64decode(key[1]) == b"me:p@ss"


@needs_openssl
def test_tls_goes_through_a_tunnel_and_is_the_endpoints_own(https: RawServer) -> None:
    tunnels = Tunnels(port_of(https.url))
    with RawServer(tunnels) as proxy:
        driven = drive(https.url, TWO, proxy=proxy.url)
    assert driven.statuses == {"ok": 2}
    assert {record.clock for record in driven.records} == {"kernel"}
    assert tunnels.asked[-1].startswith(f"CONNECT localhost:{port_of(https.url)} HTTP/1.1\r\n".encode())
    assert b"authorization" not in tunnels.asked[-1]
    first = min(driven.records, key=lambda record: record.seq)
    assert first.conn_s is not None  # the tunnel and the handshake are made before the request, and measured apart
    assert first.ttft_s is not None


@needs_openssl
@pytest.mark.parametrize(
    ("greeting", "said"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "refuses the tunnel.*407"),
        (b"HTTP/1.1 200", "closed the connection instead"),
    ],
)
def test_a_proxy_that_opens_no_tunnel_is_named(https: RawServer, greeting: bytes, said: str) -> None:
    def script(peer: Peer) -> None:
        peer.request(read_body=False)
        peer.send(greeting)

    with RawServer(script) as proxy, pytest.raises(OSError, match=said):
        drive(https.url, TWO, proxy=proxy.url)


def test_the_environments_proxy_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(peer: Peer) -> None:
        peer.request()
        peer.send(page("502 Bad Gateway", b"the proxy was asked"))

    with RawServer(nobody) as proxy, RawServer(answering(reply(3))) as server:
        for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        assert drive(server.url, TWO).statuses == {"ok": 2}
        assert drive(server.url, TWO, proxy=proxy.url).statuses == {"http_error": 2}


@pytest.mark.parametrize(
    "proxy",
    ["socks5://me:s3cret@x:1", "me:s3cret@x:1", "https://x", "http://", "http://:s3cret@x:port", "http://x/s3cret"],
)
def test_what_is_no_http_proxy_is_refused_without_showing_it(proxy: str) -> None:
    with pytest.raises(UsageError, match="no address of an HTTP proxy") as raised:
        parse_endpoint("http://box:8000", proxy)
    assert "s3cret" not in str(raised.value)


def test_a_unix_socket_has_no_proxy() -> None:
    with pytest.raises(UsageError, match="Unix socket"):
        parse_endpoint("unix:/run/llm.sock", "http://box:3128")
