"""Requests out, pieces in: the sockets of one worker under one poll.

Per readable socket this does as little as can be done: fetch the bytes with the kernel's stamp, keep them, and see
whether the reply has ended. The end of an event stream's chunked body (``0 CRLF CRLF``) is looked for in the bytes
themselves; decoding, which comes later, checks it. What is merged in the kernel keeps only its newest stamp, so reads
are small until the first token is in.
"""

from __future__ import annotations

import select
from collections import deque
from collections.abc import Callable
from typing import Any

from loadgen.drive.clock import ANCILLARY, now_ns, realtime_ns_of
from loadgen.drive.http import MalformedReply, parse_head
from loadgen.drive.outcome import Exchange
from loadgen.drive.prepare import Prepared
from loadgen.drive.reply import Reply
from loadgen.drive.scan import Known
from loadgen.drive.sockets import LARGE_READ, SMALL_READ, Connection, Pool
from loadgen.drive.understand import MANY, Backlog

READ = select.POLLIN
WRITE = select.POLLOUT


class Traffic:
    """The connections of a worker and the exchanges on them.

    ``ended(exchange, at)`` is called once for each exchange, when its reply has ended or cannot come any more.
    """

    def __init__(self, prepared: Prepared, backlog: Backlog, ended: Callable[[Exchange, int], None]) -> None:
        self.prepared = prepared
        self.shape = prepared.job.shape
        self.backlog = backlog
        self.ended = ended
        self.poll = make_poll()
        self.pool = Pool(prepared.endpoint, self.shape.connect_timeout_s, self._watch, self._close)
        self.active: set[Exchange] = set()
        self.opened = 0
        self.kernel_clock = True
        self.loop_ns = 0
        self._connections: dict[int, Connection] = {}
        self._others: dict[int, Callable[[], None]] = {}
        self._carrier: dict[Exchange, Connection] = {}
        self._vocabularies: dict[object, Known] = {}
        self._unsent: deque[tuple[Exchange, bytes]] = deque()

    # -- the poll -------------------------------------------------------------------------------------------------

    def also_watch(self, fd: int, ready: Callable[[], None]) -> None:
        """Calls ``ready()`` when another descriptor can be read: the timer, the parent's messages."""
        self.poll.register(fd, READ)
        self._others[fd] = ready

    def forget(self, fd: int) -> None:
        """Watches a descriptor no longer."""
        if self._others.pop(fd, None) is not None:
            self.poll.unregister(fd)

    def step(self, wait: float) -> int:
        """Waits at most ``wait`` seconds, then handles all that is ready; how many descriptors were."""
        ready = self.poll.poll(wait)
        began = now_ns()
        connections, read = self._connections, self._read
        for fd, event in ready:
            connection = connections.get(fd)
            if event == READ and connection is not None and connection.exchange is not None and connection.connected:
                exchange = connection.exchange  # nearly always
                if exchange.hot:
                    self._read_on(connection, exchange)
                else:
                    read(connection, exchange)
            elif connection is None:
                if fd in self._others:
                    self._others[fd]()
            elif not connection.connected:
                self._connecting(connection)
            elif connection.exchange is None:
                self.pool.forget(connection)  # idle and readable: the server closed it, or sent what nobody asked for
            else:
                if event & WRITE and connection.flush():
                    self.poll.modify(fd, READ)
                if event & ~WRITE:
                    self._read(connection, connection.exchange)
        busy = now_ns() - began
        if busy > self.loop_ns:
            self.loop_ns = busy
        return len(ready)

    def close(self) -> None:
        """Closes every connection and the poll."""
        for connection in list(self._connections.values()):
            self._close(connection)
        if hasattr(self.poll, "close"):
            self.poll.close()

    # -- connections ----------------------------------------------------------------------------------------------

    def warm(self, connections: int) -> None:
        """Opens connections ahead and waits until each is usable or refused. Raises OSError if none can be had."""
        self.pool.resolve()
        for _ in range(connections - len(self.pool.idle)):
            self.pool.open()
        limit = now_ns() + self.pool.timeout_ns
        while self.pool.opening and now_ns() < limit:
            self.step(0.05)

    def _watch(self, connection: Connection) -> None:
        self._connections[connection.fd] = connection
        self.opened += 1
        self.kernel_clock = self.kernel_clock and connection.kernel
        self.poll.register(connection.fd, READ | WRITE)

    def _close(self, connection: Connection, reset: bool = False) -> None:
        if self._connections.pop(connection.fd, None) is not None:
            self.poll.unregister(connection.fd)
        connection.close(reset)

    def _connecting(self, connection: Connection) -> None:
        try:
            usable = connection.advance()
        except OSError as error:
            self.pool.opening -= 1
            self._close(connection)
            if self._unsent:
                self._refused(self._unsent[0][0], error)
            return
        self.poll.modify(connection.fd, READ)
        if usable:
            self.pool.opening -= 1
            self._free(connection, now_ns())

    def _refused(self, exchange: Exchange, error: OSError) -> None:
        self.fail(exchange, "connect_error", f"{self.prepared.job.endpoint}: {error.strerror or error}")

    def _free(self, connection: Connection, now: int) -> None:
        """A usable connection without a request: the request that has waited longest takes it, else the pool."""
        if self._unsent:
            self._send(*self._unsent.popleft(), connection)
        else:
            self.pool.give(connection, now)

    # -- sending --------------------------------------------------------------------------------------------------

    def dispatch(self, exchange: Exchange, data: bytes, now: int) -> None:
        """Sends a request on an idle connection, or on a new one as soon as it is there."""
        self.active.add(exchange)
        exchange.t_due = now
        connection = self.pool.take(now)
        if connection is not None:
            self._send(exchange, data, connection)
            return
        self._unsent.append((exchange, data))
        try:
            self.pool.open()
        except OSError as error:
            self._refused(exchange, error)

    def _send(self, exchange: Exchange, data: bytes, connection: Connection) -> None:
        connection.exchange = exchange
        self._carrier[exchange] = connection
        if not connection.used:
            exchange.conn_s = connection.conn_s
            connection.used = True
        exchange.kernel = connection.kernel
        exchange.plain = connection.tls is None
        exchange.t_send = exchange.last_read = now_ns()  # right before the bytes go to the kernel
        try:
            done = connection.send(data)
        except OSError as error:
            self.fail(exchange, "reset", f"the request could not be sent: {error.strerror or error}")
            return
        if not done:
            self.poll.modify(connection.fd, READ | WRITE)

    # -- reading --------------------------------------------------------------------------------------------------

    def _read_on(self, connection: Connection, exchange: Exchange) -> None:
        """One more piece of a familiar stream, in as few steps as there are: this runs once for every token."""
        try:
            data, ancillary, _, _ = connection.recvmsg(LARGE_READ, ANCILLARY)
        except OSError:
            self._read(connection, exchange)
            return
        now = exchange.last_read = now_ns()
        pieces = exchange.pieces
        if len(data) < 7 or data.endswith(b"\r\n0\r\n\r\n"):
            if data:
                self._piece(connection, exchange, data, ancillary, now)
            else:
                self._closed(connection, exchange, now)
            return
        pieces.append(data)
        exchange.stamps.append(ancillary)
        exchange.reads.append(now)
        self.backlog.bytes += len(data)
        if len(pieces) >= MANY:
            self.backlog.add(exchange)

    def _read(self, connection: Connection, exchange: Exchange) -> None:
        reply = exchange.reply
        size = LARGE_READ if reply is not None and (reply.chunk_ns or len(exchange.pieces) > 2) else SMALL_READ
        while True:
            try:
                data, ancillary, _, _ = connection.recvmsg(size, ANCILLARY)
            except BlockingIOError:
                return
            except OSError as error:
                self.fail(exchange, "reset", f"the connection was cut: {error.strerror or error}")
                return
            now = exchange.last_read = now_ns()
            if not data:
                self._closed(connection, exchange, now)
                return
            full = len(data) == size
            if connection.tls is not None:
                data = connection.decrypt(data)
            if data:
                self._piece(connection, exchange, data, ancillary, now)
            if not full or connection.exchange is not exchange:
                return

    def _piece(self, connection: Connection, exchange: Exchange, data: bytes, ancillary: Any, now: int) -> None:
        reply = exchange.reply
        if reply is None:
            exchange.head += data
            reply = self._begin_reply(exchange, ancillary)
            if reply is None:
                return
            data = exchange.head[reply.head.size :]
            exchange.head = b""
        self.backlog.add_piece(exchange, data, ancillary, now)
        if not ends(exchange, reply, data):
            return
        at = self.backlog.arrival(exchange, ancillary, now)
        self._end(exchange, at)
        self.backlog.add(exchange)
        connection.exchange = None
        if reply.head.keep_alive and (exchange.left or 0) >= 0:
            self._free(connection, now)
        else:
            self._close(connection)

    def _begin_reply(self, exchange: Exchange, ancillary: Any) -> Reply | None:
        realtime = realtime_ns_of(ancillary)
        if realtime and realtime - self.backlog.offset.ns < exchange.t_send - 1_000_000:
            self.fail(exchange, "malformed", "bytes came on the connection before the request was sent on it")
            return None
        try:
            head = parse_head(exchange.head)
        except MalformedReply as error:
            self.fail(exchange, "malformed", str(error))
            return None
        if head is None:
            return None
        exchange.reply = Reply(
            head,
            self.prepared.backend,
            self.prepared.job.options.stream,
            self.shape.max_event_bytes,
            self._vocabularies,
        )
        exchange.left = head.length
        return exchange.reply

    def _closed(self, connection: Connection, exchange: Exchange, now: int) -> None:
        """The server closed: the end of a reply without a length, a cut in all others."""
        self._close(connection)
        if exchange.reply is None:
            exchange.failed, exchange.why = "reset", "the server closed the connection without a reply"
        exchange.closed = True
        self._end(exchange, now)
        self.backlog.add(exchange)

    # -- endings --------------------------------------------------------------------------------------------------

    def fail(self, exchange: Exchange, status: str, why: str) -> None:
        """Ends an exchange with a status that the driver saw; its connection is reset."""
        exchange.failed, exchange.why = status, why
        connection = self._carrier.get(exchange)
        if connection is not None:
            self._close(connection, reset=True)
        elif not exchange.t_send:
            self._unsent = deque(item for item in self._unsent if item[0] is not exchange)
        self._end(exchange, now_ns())
        self.backlog.add(exchange)

    def broken(self, exchange: Exchange, why: str) -> None:
        """Decoding found bytes that are no reply."""
        if exchange.ended:
            if exchange.failed is None:
                exchange.failed, exchange.why = "malformed", why
        else:
            self.fail(exchange, "malformed", why)

    def over(self, exchange: Exchange, at: int) -> None:
        """Decoding found an end that the bytes alone did not show (a chunked body with trailer fields, surplus)."""
        connection = self._carrier[exchange]
        self._end(exchange, at)
        self._close(connection)

    def _end(self, exchange: Exchange, at: int) -> None:
        exchange.t_end = at
        exchange.ended = True
        self.active.discard(exchange)
        self._carrier.pop(exchange, None)
        self.ended(exchange, at)


def ends(exchange: Exchange, reply: Reply, data: bytes) -> bool:
    """True if the reply ends with this piece, as far as its bytes show it; ``exchange.left`` counts a known length."""
    if reply.head.chunked:
        if len(data) >= 7:
            return data.endswith(b"\r\n0\r\n\r\n")
        tail = b"".join(exchange.pieces[-7:])
        return tail.endswith(b"\r\n0\r\n\r\n") or tail == b"0\r\n\r\n"
    if exchange.left is None:
        return False
    exchange.left -= len(data)
    return exchange.left <= 0


class _SlowPoll:
    """select.poll behind epoll's interface, for systems without epoll; its time-out has whole milliseconds."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self.register = self._poll.register
        self.modify = self._poll.modify
        self.unregister = self._poll.unregister

    def poll(self, wait: float) -> list[tuple[int, int]]:
        return self._poll.poll(wait * 1000)


def make_poll() -> Any:
    """epoll where there is one (Linux), else poll; both have the same event numbers for reading and writing."""
    return select.epoll() if hasattr(select, "epoll") else _SlowPoll()
