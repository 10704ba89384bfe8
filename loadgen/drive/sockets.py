"""The measured sockets: non-blocking connections whose reads carry the kernel's stamp, and the pool that keeps them.

A connection belongs to the worker's poll under its file descriptor. It is opened before it is needed: what connecting
costs (TCP and TLS) is measured as ``conn_s`` and never part of a latency. TLS runs over memory buffers (ssl.MemoryBIO),
so that its records, too, come out of recvmsg with the kernel's stamp.
"""

from __future__ import annotations

import errno
import os
import socket
import ssl
from collections.abc import Callable
from typing import Any

from loadgen.drive.clock import ask_for_stamps, now_ns
from loadgen.drive.http import Endpoint

SMALL_READ = 2048
"""Until the first token is in, so that what the server wrote separately is, where possible, stamped separately."""
LARGE_READ = 65536
IDLE_LIMIT_NS = 4_000_000_000
"""A kept connection that was idle for longer is not used again: servers close them (uvicorn after 5 s), and a request
sent into a closing connection is lost."""


class Connection:
    """One TCP, TLS or Unix connection. ``exchange`` is the request that it carries now, None when idle; ``finished``:
    the peer announced over TLS that it will send no more."""

    __slots__ = (
        "_out",
        "_reached",
        "_tls_in",
        "_tls_out",
        "conn_s",
        "connected",
        "exchange",
        "fd",
        "finished",
        "idle_since",
        "kernel",
        "opened",
        "recvmsg",
        "sock",
        "tls",
        "used",
    )

    def __init__(self, sock: socket.socket, tls: ssl.SSLObject | None, bios: Any) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.recvmsg = sock.recvmsg
        self.kernel = ask_for_stamps(sock)
        self.exchange: Any = None
        self.tls = tls
        self._tls_in, self._tls_out = bios
        self._out: bytes | memoryview = b""
        self.finished = False
        self.opened = now_ns()
        self.conn_s: float | None = None
        self.connected = False
        self._reached = False
        self.idle_since = 0
        self.used = False

    def advance(self) -> bool:
        """Goes on with connecting (TCP, then the TLS handshake) as far as it can. True once the connection is usable.

        Call it whenever the socket is ready. Raises OSError (ssl.SSLError is one) when it is not to be had.
        """
        if not self._reached:
            failed = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if failed:
                raise OSError(failed, os.strerror(failed))
            self._reached = True
        elif self.tls is not None:
            self._receive_handshake()
        if self.tls is not None:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                self._flush_tls()
                return False
            self._flush_tls()
        self.connected = True
        self.idle_since = now_ns()
        self.conn_s = (self.idle_since - self.opened) / 1e9
        return True

    def send(self, data: bytes) -> bool:
        """Sends, or as much as the socket takes. True when nothing is left; else call `flush` when it is writable.

        Raises OSError when the connection is gone.
        """
        if self.tls is not None:
            self.tls.write(data)
            data = self._tls_out.read()
        self._out = memoryview(bytes(self._out) + data if self._out else data)
        return self.flush()

    def flush(self) -> bool:
        """Sends what is left. True when nothing is. Raises OSError when the connection is gone."""
        while self._out:
            try:
                sent = self.sock.send(self._out)
            except (BlockingIOError, InterruptedError):
                return False
            self._out = self._out[sent:]
        self._out = b""
        return True

    def give_up_sending(self) -> None:
        """Forgets what was not sent: the peer does not take it, but may have answered."""
        self._out = b""

    def decrypt(self, data: bytes) -> bytes:
        """The plain bytes of what came in; b'' where it was TLS's own business. Raises ssl.SSLError for broken TLS."""
        assert self.tls is not None
        self._tls_in.write(data)
        plain = []
        try:
            while more := self.tls.read(LARGE_READ):
                plain.append(more)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.finished = True
        return b"".join(plain)

    def close(self, reset: bool = False) -> None:
        """Closes; with ``reset`` at once (RST), so that the server notices that nobody reads any more."""
        if reset:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.sock.close()

    def _receive_handshake(self) -> None:
        """Takes bytes of a handshake. Raises OSError when the peer has closed."""
        try:
            data = self.sock.recv(LARGE_READ)
        except (BlockingIOError, InterruptedError):
            return
        if not data:
            raise OSError(errno.ECONNRESET, "the server closed the connection during the TLS handshake")
        self._tls_in.write(data)

    def _flush_tls(self) -> None:
        self._out = bytes(self._out) + self._tls_out.read()
        self.flush()


class Pool:
    """Opens connections to one endpoint and keeps the idle ones, the one used last first.

    ``watch(connection)`` is called with each new connection and ``close(connection)`` with each that is stale, so that
    their owner can register them with its poll and take them out again.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        timeout_s: float,
        watch: Callable[[Connection], None],
        close: Callable[[Connection], None],
    ) -> None:
        self.endpoint = endpoint
        self.timeout_ns = int(timeout_s * 1e9)
        self.watch = watch
        self.close = close
        self.idle: list[Connection] = []
        self.opening = 0
        self.address: tuple[int, Any] | None = None
        self._tls = ssl.create_default_context() if endpoint.tls else None

    def resolve(self) -> None:
        """Finds the address that answers, of those that the name has (IPv6 and IPv4). Raises OSError with the reason.

        It connects once for this, blocking; the connection that was tried is closed again.
        """
        if self.endpoint.unix is not None:
            self.address = (socket.AF_UNIX, self.endpoint.unix)
            return
        reason: OSError | None = None
        try:
            found = socket.getaddrinfo(self.endpoint.host, self.endpoint.port, type=socket.SOCK_STREAM)
        except UnicodeError as error:
            raise OSError(f"{self.endpoint.host!r} cannot be a host name") from error
        for family, _, _, _, address in found:
            try:
                with socket.socket(family, socket.SOCK_STREAM) as probe:
                    probe.settimeout(self.timeout_ns / 1e9)
                    probe.connect(address)
                self.address = (family, address)
                return
            except OSError as error:
                reason = error
        raise reason or OSError(f"{self.endpoint.host} has no address")

    def open(self) -> Connection:
        """Starts to connect; the connection is usable once its `advance` says so. Raises OSError."""
        if self.address is None:
            self.resolve()
        assert self.address is not None
        family, address = self.address
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            if family != socket.AF_UNIX:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = Connection(sock, *self._wrap())
            failed = sock.connect_ex(address)
            if failed not in (0, errno.EINPROGRESS):  # EAGAIN, too: a Unix socket's queue is full, or no port is left
                raise OSError(failed, os.strerror(failed))
        except OSError:
            sock.close()
            raise
        self.opening += 1
        self.watch(connection)
        return connection

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

    def forget(self, connection: Connection) -> None:
        """The peer closed an idle connection."""
        if connection in self.idle:
            self.idle.remove(connection)
        self.close(connection)

    def _wrap(self) -> tuple[ssl.SSLObject | None, Any]:
        if self._tls is None:
            return None, (None, None)
        bios = (ssl.MemoryBIO(), ssl.MemoryBIO())
        return self._tls.wrap_bio(*bios, server_hostname=self.endpoint.host), bios
