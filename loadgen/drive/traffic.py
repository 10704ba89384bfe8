"""Requests out, pieces in: the sockets of one worker under one poll.

Per readable socket this does as little as can be done: fetch the bytes with the kernel's stamp, keep them, and see
whether the reply has ended. The end of an event stream's chunked body (``0 CRLF CRLF``) is looked for in the bytes
themselves; decoding, which comes later, checks it. What is merged in the kernel keeps only its newest stamp, so reads
are small until the first token is in.
"""

from __future__ import annotations

from collections.abc import Callable

from loadgen.drive.balance import make_balance
from loadgen.drive.clock import now_ns, realtime_ns_of
from loadgen.drive.hot import read_on
from loadgen.drive.http import MalformedReply
from loadgen.drive.outcome import Exchange
from loadgen.drive.poll import READ, WRITE, make_poll
from loadgen.drive.pools import Pools
from loadgen.drive.prepare import Prepared
from loadgen.drive.reply import Reply
from loadgen.drive.sockets import LARGE_READ, SMALL_READ, Connection
from loadgen.drive.understand import Backlog, ends

_READS = 32
"""Most reads from one socket before the others have their turn: a server may send faster than this program reads."""


class Traffic:
    """The connections of a worker and the exchanges on them.

    ``ended(exchange, at)`` is called once for each exchange, when its reply has ended or cannot come any more.
    """

    def __init__(self, prepared: Prepared, backlog: Backlog, ended: Callable[[Exchange, int], None]) -> None:
        self.prepared = prepared
        self.urls = prepared.job.urls
        self.backlog = backlog
        self.ended = ended
        self.poll = make_poll()
        self.pools = Pools(prepared.endpoints, prepared.job.shape.connect_timeout_s, self.poll)
        self.balance = make_balance(prepared.job)
        self.active: set[Exchange] = set()
        self.loop_ns = 0
        self._others: dict[int, Callable[[], None]] = {}
        self._carrier: dict[Exchange, Connection] = {}

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
        connections, read = self.pools.connections, self._read
        for fd, event in self._familiar(ready) if ready else ():
            connection = connections.get(fd)
            if event == READ and connection is not None and (exchange := connection.exchange) is not None:
                read(connection, exchange)
            elif connection is None:
                if fd in self._others:
                    self._others[fd]()
            elif not connection.connected:
                self._connecting(connection)
            elif connection.exchange is None:
                connection.pool.stir(connection)
            else:
                if event & WRITE and connection.go_on():
                    self.poll.modify(fd, READ)
                if event & ~WRITE:
                    read(connection, connection.exchange)
        self.loop_ns = max(self.loop_ns, now_ns() - began)
        return len(ready)

    def tidy(self, now: int) -> None:
        """Ten times a second: connections that never came about are given up."""
        self.pools.close_late(now)

    def close(self) -> None:
        """Closes every connection and the poll."""
        self.pools.close_all()
        self.poll.close()

    # -- connections ----------------------------------------------------------------------------------------------

    def warm(self, connections: int) -> None:
        """Opens connections ahead and waits until each is usable or refused. Raises OSError if none can be had."""
        self.pools.open_ahead(connections)
        limit = now_ns() + self.pools.timeout_ns
        while self.pools.opening and now_ns() < limit:
            self.step(0.05)
        if self.pools.refusal is not None:
            raise self.pools.refusal

    def _connecting(self, connection: Connection) -> None:
        try:
            if connection.pool.advance(connection):
                self._free(connection, now_ns())
        except OSError as error:
            if (exchange := connection.pool.first_waiting()) is not None:
                self._refused(exchange, error)

    def _refused(self, exchange: Exchange, error: OSError) -> None:
        self.fail(exchange, "connect_error", f"{self.urls[exchange.place]}: {error.strerror or error}")

    def _free(self, connection: Connection, now: int) -> None:
        """A usable connection without a request: the request that has waited longest takes it, else the pool."""
        if (waiting := connection.pool.serve(connection, now)) is not None:
            self._send(waiting[0], waiting[1], connection)

    # -- sending --------------------------------------------------------------------------------------------------

    def dispatch(self, exchange: Exchange, data: bytes, now: int) -> None:
        """Sends a request on an idle connection, or on a new one as soon as it is there."""
        self.active.add(exchange)
        exchange.t_due = now
        if self.balance is not None:
            exchange.place = self.balance.choose(exchange.send, now)
            data = self.prepared.heads[exchange.place] + data
        try:
            connection = self.pools[exchange.place].carrier(exchange, data, now)
        except OSError as error:
            self._refused(exchange, error)
            return
        if connection is not None:
            self._send(exchange, data, connection)

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
            if not connection.send(data):
                self.poll.modify(connection.fd, READ | WRITE)
        except OSError as error:
            self.fail(exchange, "reset", f"the request could not be sent: {error.strerror or error}")

    # -- reading --------------------------------------------------------------------------------------------------

    def _familiar(self, ready: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """Reads what is familiar of what is ready; the rest of it."""
        rest, odd, full, kept = read_on(ready, self.pools.connections)
        self.backlog.bytes += kept
        for exchange in full:
            self.backlog.add(exchange)
        for connection, exchange, data, stamp, now in odd:  # perhaps the end
            exchange.last_read = now
            if data:
                self._piece(connection, exchange, data, stamp, now)
            else:
                self._closed(connection, exchange, now)
        return rest

    def _read(self, connection: Connection, exchange: Exchange) -> None:
        reply = exchange.reply
        size = exchange.room if reply is not None and (reply.chunk_ns or len(exchange.pieces) > 2) else SMALL_READ
        for _ in range(_READS):
            try:
                data, stamp, now = connection.receive(size)
            except BlockingIOError:
                return
            except OSError as error:
                self.fail(exchange, "reset", f"the connection was cut: {error.strerror or error}")
                return
            exchange.last_read = now
            if not data:
                self._closed(connection, exchange, now)
                return
            full = len(data) == size
            if full:
                exchange.room = LARGE_READ
                size = LARGE_READ if size > SMALL_READ or len(exchange.pieces) > 2 else SMALL_READ
            if connection.tls is not None:
                data = connection.decrypt(data)
            if data:
                self._piece(connection, exchange, data, stamp, now)
            if connection.exchange is not exchange:
                return
            if connection.finished:
                self._closed(connection, exchange, now)
            if not full or connection.finished:
                return

    def _piece(self, connection: Connection, exchange: Exchange, data: bytes, stamp: bytes, now: int) -> None:
        reply = exchange.reply
        if reply is None:
            exchange.head += data
            reply = self._begin_reply(exchange, stamp)
            if reply is None:
                return
            data = exchange.head[reply.head.size :]
            exchange.head = b""
        self.backlog.add_piece(exchange, data, stamp, now)
        if not ends(exchange, reply, data):
            self.backlog.add(exchange)
            return
        if reply.head.chunked and not reply.stream and not self.backlog.settled(exchange):
            return  # a page may hold anything, even what looks like its end
        self._end(exchange, self.backlog.arrival(exchange, realtime_ns_of(stamp), now))
        self.backlog.add(exchange)
        self._release(connection, exchange, reply, now)

    def _release(self, connection: Connection, exchange: Exchange, reply: Reply, now: int) -> None:
        """The reply is over: the connection goes back, if nothing came after the end and the server keeps it."""
        connection.exchange = None
        surplus = reply.surplus or (exchange.left or 0) < 0
        if reply.head.keep_alive and not surplus and not connection.sending:
            self._free(connection, now)
        else:
            connection.pool.close(connection)

    def _begin_reply(self, exchange: Exchange, stamp: bytes) -> Reply | None:
        realtime = realtime_ns_of(stamp)
        if realtime and realtime - self.backlog.offset.ns < exchange.t_send - 1_000_000:
            self.fail(exchange, "malformed", "bytes came on the connection before the request was sent on it")
            return None
        try:
            exchange.reply = self.prepared.begin_reply(exchange.head)
        except MalformedReply as error:
            self.fail(exchange, "malformed", str(error))
        if exchange.reply is not None:
            exchange.left = exchange.reply.head.length
        return exchange.reply

    def _closed(self, connection: Connection, exchange: Exchange, now: int) -> None:
        """The server closed: the end of a reply without a length, a cut in all others."""
        if connection.broken is not None:
            self.fail(exchange, "reset", f"the TLS connection broke: {connection.broken}")
            return
        connection.exchange = None
        connection.pool.close(connection)
        if exchange.reply is None:
            exchange.failed, exchange.why = "reset", "the server closed the connection without a reply"
        exchange.closed = True
        self._end(exchange, now)
        self.backlog.add(exchange)

    # -- endings --------------------------------------------------------------------------------------------------

    def fail(self, exchange: Exchange, status: str, why: str) -> None:
        """Ends an exchange with a status that the driver saw; its connection is reset."""
        if exchange.ended:
            return
        exchange.failed, exchange.why = status, why
        connection = self._carrier.get(exchange)
        if connection is not None:
            connection.exchange = None
            connection.pool.close(connection, reset=True)
        self._end(exchange, now_ns())
        self.pools[exchange.place].first_waiting()
        self.backlog.add(exchange)

    def broken(self, exchange: Exchange, why: str) -> None:
        """Decoding found bytes that are no reply."""
        if not exchange.ended:
            self.fail(exchange, "malformed", why)
        elif exchange.failed is None:
            exchange.failed, exchange.why = "malformed", why

    def over(self, exchange: Exchange, at: int) -> None:
        """Decoding found an end that the bytes alone did not show: in short pieces, after trailer fields or surplus."""
        connection, reply = self._carrier[exchange], exchange.reply
        assert reply is not None
        self._end(exchange, at)
        self._release(connection, exchange, reply, now_ns())

    def _end(self, exchange: Exchange, at: int) -> None:
        exchange.t_end = at
        exchange.ended = True
        self.active.discard(exchange)
        self._carrier.pop(exchange, None)
        if self.balance is not None:
            self.balance.ended(exchange.place, exchange.failed, at)
        self.ended(exchange, at)
