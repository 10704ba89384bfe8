"""Small servers for the driver's tests: raw sockets in threads, and the bytes that they send.

A script is a function of a `Peer` (one connection). It reads requests and answers with whatever bytes it likes.
"""

from __future__ import annotations

import contextlib
import json
import re
import select
import socket
import ssl
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from loadgen.drive.clock import ANCILLARY

STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"


def event(text: str = "", **more: Any) -> bytes:
    """A chat event in an HTTP chunk of its own."""
    choice = {"index": 0, "delta": {"content": text} if text else {}, "finish_reason": None}
    return chunk(b"data: " + json.dumps({"id": "x", "choices": [{**choice, **more}]}).encode() + b"\n\n")


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


FINISH = event(finish_reason="stop")
DONE = chunk(b"data: [DONE]\n\n")


def reply(tokens: int = 3) -> bytes:
    """A whole good reply."""
    return STREAM + b"".join(event(f" w{i}") for i in range(tokens)) + FINISH + DONE + END


def page(status: str, body: bytes, **fields: str) -> bytes:
    """A reply that is no stream, with its length."""
    head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status}\r\n{head}content-length: {len(body)}\r\n\r\n".encode() + body


def arrived(sock: socket.socket) -> None:
    """Waits until there is something to read: bytes, an end, or a cut."""
    assert select.select([sock], [], [], 30)[0]


def until_stamped(here: socket.socket, there: socket.socket) -> None:
    """Sends bytes over a pair until ``here``, which has asked for the kernel's stamps, gets one."""
    for _ in range(10_000 if sys.platform.startswith("linux") else 0):
        there.send(b".")
        arrived(here)
        if here.recvmsg(1, ANCILLARY)[1]:
            return
        time.sleep(0.001)


class Gone(Exception):
    """The client closed the connection."""


class Peer:
    """One connection of a client. ``number`` counts connections from 0."""

    def __init__(self, sock: socket.socket, number: int) -> None:
        self.sock = sock
        self.number = number
        self._data = b""

    def request(self, read_body: bool = True) -> tuple[bytes, bytes]:
        """(head, body) of the next request. Raises Gone if none comes any more."""
        while b"\r\n\r\n" not in self._data:
            self._more()
        head, _, rest = self._data.partition(b"\r\n\r\n")
        length = int(re.search(rb"(?i)content-length: (\d+)", head)[1]) if read_body else 0  # type: ignore[index]
        body = bytearray(rest)
        while len(body) < length:
            body += self._received()
        self._data = bytes(body[length:])
        return head, bytes(body[:length])

    def _more(self) -> None:
        self._data += self._received()

    def _received(self) -> bytes:
        try:
            data = self.sock.recv(1 << 16)
        except OSError:
            data = b""
        if not data:
            raise Gone
        return data

    def send(self, *pieces: bytes, gap: float = 0.0) -> None:
        """Sends pieces, each in a write of its own."""
        for piece in pieces:
            try:
                self.sock.sendall(piece)
            except OSError as error:
                raise Gone from error
            time.sleep(gap)

    def until_gone(self) -> None:
        """Keeps the connection until the client closes it."""
        with contextlib.suppress(Gone):
            while True:
                self._more()

    def reset(self) -> None:
        """Cuts the connection with an RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


Script = Callable[[Peer], None]


class RawServer:
    """Runs a script for each connection, in a thread. It ends, with all of its threads, when the block does.

    ``errors`` holds what went wrong in a script; it is raised at the end of the block.
    """

    def __init__(self, script: Script, *, host: str = "127.0.0.1", unix: str = "", tls: ssl.SSLContext | None = None):
        self.script = script
        self.tls = tls
        family = socket.AF_UNIX if unix else socket.AF_INET6 if ":" in host else socket.AF_INET
        self.listener = socket.socket(family, socket.SOCK_STREAM)
        self.listener.bind(unix or (host, 0))
        self.listener.listen(256)
        scheme = "https" if tls else "http"
        name = f"[{host}]" if ":" in host else "localhost" if tls else host
        self.url = f"unix:{unix}" if unix else f"{scheme}://{name}:{self.listener.getsockname()[1]}"
        self.connections = 0
        self.errors: list[Exception] = []
        self._socks: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._accepting = threading.Thread(target=self._accept)

    def __enter__(self) -> RawServer:
        self._accepting.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.stop_listening()
        self._accepting.join(10)
        for sock in self._socks:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        for sock in self._socks:
            sock.close()
        if kind is None and self.errors:
            raise self.errors[0]

    def stop_listening(self) -> None:
        """Refuses connections from now on."""
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            self._socks.append(sock)
            thread = threading.Thread(target=self._serve, args=(sock, self.connections))
            self.connections += 1
            self._threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket, number: int) -> None:
        try:
            if sock.family != socket.AF_UNIX:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.tls is not None:
                sock = self.tls.wrap_socket(sock, server_side=True)
                self._socks.append(sock)
            self.script(Peer(sock, number))
        except (Gone, OSError):
            pass
        except Exception as error:  # noqa: BLE001  a test that fails in a thread must fail
            self.errors.append(error)
        with contextlib.suppress(OSError):
            sock.close()


@contextlib.contextmanager
def nobody() -> Iterator[str]:
    """A URL at which nobody listens, and nobody can begin to: its port is taken."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


def answering(*replies: bytes, gap: float = 0.0) -> Script:
    """A script that answers every request of a connection with the same pieces."""

    def script(peer: Peer) -> None:
        while True:
            peer.request()
            peer.send(*replies, gap=gap)

    return script


LAST = reply(1).replace(b"200 OK\r\n", b"200 OK\r\nConnection: close\r\n")
TWO = STREAM + event(" a") + event(" b")
