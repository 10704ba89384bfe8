"""The measured sockets: non-blocking connections whose reads carry the kernel's stamp.

What connecting costs (TCP and TLS) is measured as ``conn_s`` and never part of a latency. TLS runs over memory buffers
(ssl.MemoryBIO), so that its records, too, come out of recvmsg with the kernel's stamp. `pool.py` keeps the connections.
"""

from __future__ import annotations

import errno
import os
import socket
import ssl
from typing import Any

from loadgen.drive.clock import ask_for_stamps, now_ns
from loadgen.drive.fast import receiver

SMALL_READ = 2048
"""Until the first token is in, so that what the server wrote separately is, where possible, stamped separately."""
READ = 4096
"""Afterwards. Python makes room for the whole of it before each read, and 64 KiB of room cost a tenth of all CPU."""
LARGE_READ = 65536
"""Once a read was full: the server, or the network, brings more at a time than that."""


class Connection:
    """One TCP, TLS or Unix connection. ``exchange`` is the request that it carries now, None when idle; ``pool`` the
    pool that it belongs to. ``finished``:
    TLS says that no more will come, and ``broken`` why, if that is not as it should be."""

    __slots__ = (
        "_out",
        "_reached",
        "_tls_in",
        "_tls_out",
        "_tunnel",
        "_tunnelled",
        "broken",
        "conn_s",
        "connected",
        "exchange",
        "fd",
        "finished",
        "idle_since",
        "kernel",
        "opened",
        "pool",
        "receive",
        "sock",
        "tls",
        "used",
    )

    def __init__(self, sock: socket.socket, tls: ssl.SSLObject | None, bios: Any, tunnel: bytes = b"") -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.receive = receiver(sock)
        self.kernel = ask_for_stamps(sock)
        self.exchange: Any = None
        self.pool: Any = None
        self.tls = tls
        self._tls_in, self._tls_out = bios
        self._out: bytes | memoryview = b""
        self.finished = False
        self.broken: str | None = None
        self.opened = now_ns()
        self.conn_s: float | None = None
        self.connected = False
        self._reached = False
        self._tunnel = tunnel
        self._tunnelled = b""
        self.idle_since = 0
        self.used = False

    def advance(self) -> bool:
        """Goes on with connecting (TCP, perhaps a tunnel through a proxy, then the TLS handshake) as far as it can.
        True once the connection is usable.

        Call it whenever the socket is ready. Raises OSError (ssl.SSLError is one) when it is not to be had.
        """
        if not self._reached:
            failed = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if failed:
                raise OSError(failed, os.strerror(failed))
            self._reached = True
            self._out = self._tunnel
            self.flush()
        elif not self._tunnel and self.tls is not None:
            self._receive_handshake()
        if self._tunnel and not self._through():
            return False
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

    def go_on(self) -> bool:
        """Sends what is left, once the socket is writable. True when nothing is left, or the peer takes no more: then
        the next read brings its answer, or the cut."""
        try:
            return self.flush()
        except OSError:
            self._out = b""
            return True

    def decrypt(self, data: bytes) -> bytes:
        """The plain bytes of what came in; b'' where it was TLS's own business, or broken."""
        assert self.tls is not None
        self._tls_in.write(data)
        plain = []
        try:
            while more := self.tls.read(LARGE_READ):
                plain.append(more)
            self.finished = True  # an empty read is the peer's close_notify
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            self.finished, self.broken = True, error.reason or str(error)
        return b"".join(plain)

    @property
    def sending(self) -> bool:
        """True while a part of the request has not been sent."""
        return bool(self._out)

    def is_quiet(self) -> bool:
        """Looks at what came while the connection was idle: True if that was TLS's own business (a session ticket),
        False if the peer closed, or sent what nobody asked for."""
        if self.tls is None:
            return False
        try:
            data = self.sock.recv(LARGE_READ)
            return bool(data) and not self.decrypt(data) and not self.finished
        except BlockingIOError:
            return True
        except OSError:
            return False

    def close(self, reset: bool = False) -> None:
        """Closes; with ``reset`` at once (RST), so that the server notices that nobody reads any more."""
        if reset:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.sock.close()

    def _through(self) -> bool:
        """True once the proxy has opened the tunnel. Raises OSError when it refuses."""
        self.flush()
        try:
            data = self.sock.recv(LARGE_READ)
        except (BlockingIOError, InterruptedError):
            return False
        self._tunnelled += data
        head, ended, rest = self._tunnelled.partition(b"\r\n\r\n")
        if not ended and (not data or len(head) > LARGE_READ):
            raise OSError(errno.ECONNRESET, "the proxy closed the connection instead of opening a tunnel")
        if not ended:
            return False
        status = head.partition(b"\r\n")[0].decode("latin-1")
        if status.split(" ")[1:2] != ["200"]:
            raise OSError(errno.ECONNREFUSED, f"the proxy refuses the tunnel: {status[:80]!r}")
        self._tunnel = b""
        self._tls_in.write(rest)
        return True

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
