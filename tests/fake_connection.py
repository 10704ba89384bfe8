"""One connection of the fake server: reading requests, sending without ever waiting, leaving cleanly or not.

In: a socket that an epoll watches. Out: whole requests, and what the kernel would not take is kept and sent later.
"""

from __future__ import annotations

import select
import socket
import ssl
import struct
from typing import Any, NamedTuple

from fake_plan import Plan

_LATER = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
_READ = select.EPOLLIN | select.EPOLLRDHUP


class Request(NamedTuple):
    """One whole request; header names are in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Connection:
    """One accepted socket, the request it is answering (``record``, ``plan``, ``next`` write), and what is unsent.

    ``turn`` counts the requests of this connection, so that what was arranged for one does not reach the next.
    """

    def __init__(self, sock: socket.socket, tls: ssl.SSLContext | None, epoll: select.epoll, at: int) -> None:
        sock.setblocking(False)
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls is not None:  # the handshake happens inside the first reads
            sock = tls.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        self.sock = sock
        self.t_accept = at
        self.inbox = bytearray()
        self.record: dict[str, Any] | None = None
        self.plan: Plan | None = None
        self.next = 0
        self.turn = 0
        self.closing = False
        self.backlog = bytearray()
        self._epoll = epoll
        epoll.register(sock, _READ)

    def read(self) -> bool:
        """Takes what has come. False if the client is gone."""
        while True:
            try:
                data = self.sock.recv(1 << 18)
            except _LATER:
                return True
            except OSError:
                return False
            self.inbox += data
            if not isinstance(self.sock, ssl.SSLSocket) or not data:  # TLS may hold bytes that epoll does not see
                return bool(data)

    def take_request(self) -> Request | None:
        """The next whole request, None while there is none."""
        end = self.inbox.find(b"\r\n\r\n")
        if end < 0:
            return None
        lines = bytes(self.inbox[:end]).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        size = end + 4 + int(headers.get("content-length", "0"))
        if len(self.inbox) < size:
            return None
        body = bytes(self.inbox[end + 4 : size])
        del self.inbox[:size]
        self.turn += 1
        self.next = 0
        method, path, *_ = lines[0].split(" ")
        return Request(method, path, headers, body)

    def send(self, data: bytes) -> bool:
        """Sends, or keeps what the kernel does not take. False if the client is gone."""
        if self.backlog:
            self.backlog += data
            return True
        try:
            sent = self.sock.send(data)
        except _LATER:
            sent = 0
        except OSError:
            return False
        if sent < len(data):
            self.backlog += data[sent:]
            self._epoll.modify(self.sock, _READ | select.EPOLLOUT)
        return True

    def drain(self) -> bool:
        """Sends what the kernel takes of the backlog. False if the client is gone, or the last reply is all sent."""
        try:
            sent = self.sock.send(memoryview(self.backlog)[: 1 << 20])
        except _LATER:
            return True
        except OSError:
            return False
        del self.backlog[:sent]
        if not self.backlog:
            self._epoll.modify(self.sock, _READ)
        return bool(self.backlog) or not self.closing

    def close(self, reset: bool = False) -> None:
        """Closes the socket; ``reset`` sends RST in place of FIN."""
        if reset:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._epoll.unregister(self.sock)
        self.sock.close()
