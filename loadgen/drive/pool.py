"""The connections to one endpoint: opened before they are needed, kept while they are idle, registered with the poll.

A connection belongs to the worker's poll under its file descriptor from the moment on which it is opened until it is
closed, whether a request is on it or not.
"""

from __future__ import annotations

import errno
import os
import socket
import ssl
from collections import deque
from typing import Any

from loadgen.drive.http import Endpoint
from loadgen.drive.outcome import Exchange
from loadgen.drive.poll import READ, WRITE
from loadgen.drive.sockets import Connection

IDLE_LIMIT_NS = 4_000_000_000
"""A kept connection that was idle for longer is not used again: servers close them (uvicorn after 5 s), and a request
sent into a closing connection is lost."""


class Pool:
    """Opens connections and keeps the idle ones, the one used last first.

    ``waiting`` holds requests, with their bytes, for which there was none. ``opened`` counts all connections that were
    ever opened; ``kernel_clock`` is True while the kernel stamps what they receive; ``refusal`` is why the last one
    that was not to be had was not. ``connections`` are those under the poll, by file descriptor; other pools may have
    theirs there, too.
    """

    def __init__(
        self, endpoint: Endpoint, timeout_s: float, poll: Any, connections: dict[int, Connection] | None = None
    ) -> None:
        self.endpoint = endpoint
        self.timeout_ns = int(timeout_s * 1e9)
        self.poll = poll
        self.connections = {} if connections is None else connections
        self.idle: list[Connection] = []
        self.opening: set[Connection] = set()
        self.waiting: deque[tuple[Exchange, bytes]] = deque()
        self.opened = 0
        self.kernel_clock = True
        self.refusal: OSError | None = None
        self._address: tuple[int, Any] | None = None
        self._tls = ssl.create_default_context() if endpoint.tls else None
        self._tunnel = endpoint.tunnel() if endpoint.tls and endpoint.proxy is not None else b""

    def resolve(self) -> None:
        """Finds the address that answers, of those that the name has (IPv6 and IPv4). Raises OSError with the reason.

        It connects once for this, blocking; the connection that was tried is closed again. Where none answers, the
        first is what later connections are tried with: a server that comes up again is found, and nothing waits.
        """
        if self.endpoint.unix is not None:
            self._address = (socket.AF_UNIX, self.endpoint.unix)
            return
        reason: OSError | None = None
        host, port = self.endpoint.proxy or (self.endpoint.host, self.endpoint.port)
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except UnicodeError as error:
            raise OSError(f"{host!r} cannot be a host name") from error
        for family, _, _, _, address in found:
            try:
                with socket.socket(family, socket.SOCK_STREAM) as probe:
                    probe.settimeout(self.timeout_ns / 1e9)
                    probe.connect(address)
                self._address = (family, address)
                return
            except OSError as error:
                reason = error
                self._address = self._address or (family, address)
        raise reason or OSError(f"{host} has no address")

    def open(self) -> None:
        """Starts to connect; the connection is usable once its `advance` says so. Raises OSError."""
        if self._address is None and self.refusal is not None:
            raise OSError(*self.refusal.args)  # looking for the name again would stop everything each time
        if self._address is None:
            self.resolve()
        assert self._address is not None
        family, address = self._address
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            if family != socket.AF_UNIX:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = Connection(sock, *self._wrap(), self._tunnel)
            failed = sock.connect_ex(address)
            if failed not in (0, errno.EINPROGRESS):  # EAGAIN, too: a Unix socket's queue is full, or no port is left
                raise OSError(failed, os.strerror(failed))
        except OSError:
            sock.close()
            raise
        connection.pool = self
        self.opening.add(connection)
        self.connections[connection.fd] = connection
        self.opened += 1
        self.kernel_clock = self.kernel_clock and connection.kernel
        self.poll.register(connection.fd, READ | WRITE)

    def advance(self, connection: Connection) -> bool:
        """Goes on with opening a connection; True once it is usable. Raises OSError, and closes it, if it is not."""
        try:
            usable = connection.advance()
        except OSError as error:
            self.refusal = error
            self.close(connection)
            raise
        self.poll.modify(connection.fd, READ)
        if usable:
            self.opening.discard(connection)
        return usable

    def close_late(self, now: int) -> None:
        """Closes the connections that have been opening for too long. Their requests have been given up by then."""
        for connection in list(self.opening):
            if now - connection.opened > self.timeout_ns:
                self.close(connection)

    def take(self, now: int) -> Connection | None:
        """An idle connection that is still fresh, or None. Stale ones are closed on the way."""
        while self.idle:
            connection = self.idle.pop()
            if now - connection.idle_since < IDLE_LIMIT_NS:
                return connection
            self.close(connection)
        return None

    def give(self, connection: Connection, now: int) -> None:
        """Takes a connection back for the next request."""
        connection.idle_since = now
        self.idle.append(connection)

    def carrier(self, exchange: Exchange, data: bytes, now: int) -> Connection | None:
        """An idle connection for a request. Without one the request waits, and a connection is opened for it: None.
        Raises OSError."""
        connection = self.take(now)
        if connection is None:
            self.waiting.append((exchange, data))
            self.open()
        return connection

    def serve(self, connection: Connection, now: int) -> tuple[Exchange, bytes] | None:
        """The request that has waited longest, for a connection that is free; without one it is kept."""
        if self.first_waiting() is not None:
            return self.waiting.popleft()
        self.give(connection, now)
        return None

    def first_waiting(self) -> Exchange | None:
        """The request that has waited longest for a connection. Those that were given up meanwhile are passed over."""
        while self.waiting and self.waiting[0][0].ended:
            self.waiting.popleft()
        return self.waiting[0][0] if self.waiting else None

    def stir(self, connection: Connection) -> None:
        """Something happened on an idle connection: it is closed, unless TLS only had something to say."""
        if not connection.is_quiet():
            if connection in self.idle:
                self.idle.remove(connection)
            self.close(connection)

    def close(self, connection: Connection, reset: bool = False) -> None:
        """Closes a connection and takes it out of the poll."""
        self.opening.discard(connection)
        if self.connections.pop(connection.fd, None) is not None:
            self.poll.unregister(connection.fd)
        connection.close(reset)

    def close_all(self) -> None:
        """Closes every connection."""
        for connection in [one for one in self.connections.values() if one.pool is self]:
            self.close(connection)
        self.idle.clear()

    def _wrap(self) -> tuple[ssl.SSLObject | None, Any]:
        if self._tls is None:
            return None, (None, None)
        bios = (ssl.MemoryBIO(), ssl.MemoryBIO())
        return self._tls.wrap_bio(*bios, server_hostname=self.endpoint.host), bios
