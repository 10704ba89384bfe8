"""Pieces that were read become chunks, and ended exchanges become records, when there is time for it.

Reading never waits for this. The worker's loop calls `slice` when nothing is ready to be read or sent; if pieces come
in faster than that for long, `full` says that memory asks for a slice all the same.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from loadgen.drive.clock import RealtimeOffset
from loadgen.drive.http import MalformedReply
from loadgen.drive.outcome import Exchange
from loadgen.drive.reply import Reply
from loadgen.drive.stamps import MARK, arrivals_of, last_read_of, mark_of, pairs_of

_SLICE = 128
_SLICE_BYTES = 256 << 10
"""Pieces, and bytes of one exchange, that are taken apart between two looks at the sockets: some 150 microseconds, in
a flood of large pieces a few milliseconds."""
_FULL_BYTES = 16 << 20
_FULL_EXCHANGES = 4096
_FEW = 2
"""Pieces that may wait before a stream is read as if it were familiar."""
MANY = 64
"""Pieces of a familiar stream that wait for each other before they are taken apart together."""


class Backlog:
    """The exchanges with something left to understand.

    ``whole(exchange)`` is called when an exchange has ended and all of its pieces are understood; ``broken(exchange,
    why)`` when its bytes are no reply; ``over(exchange, at)`` when decoding shows an end that the bytes alone did not.
    """

    def __init__(
        self,
        offset: RealtimeOffset,
        whole: Callable[[Exchange], None],
        broken: Callable[[Exchange, str], None],
        over: Callable[[Exchange, int], None],
    ) -> None:
        self.offset = offset
        self.whole, self.broken, self.over = whole, broken, over
        self.bytes = 0
        self._waiting: deque[Exchange] = deque()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    @property
    def pieces(self) -> int:
        """How many pieces are waiting."""
        return sum(len(exchange.pieces) for exchange in self._waiting)

    @property
    def full(self) -> bool:
        """True when so much is waiting that memory must be bounded."""
        return self.bytes > _FULL_BYTES or len(self._waiting) > _FULL_EXCHANGES

    def add(self, exchange: Exchange) -> None:
        """Something of this exchange is left to be understood: pieces, or its end."""
        if not exchange.queued:
            exchange.queued = True
            self._waiting.append(exchange)

    def add_piece(self, exchange: Exchange, data: bytes, stamp: bytes, read_at: int) -> None:
        """Keeps a piece with its kernel stamp (b'' without one) and the time at which it was read (ns).

        Until the stream is a familiar one its pieces are understood soon; later many at a time, which costs less.
        Where there is no time for that, so many wait already that it is read like a familiar one.
        """
        exchange.pieces.append(data)
        exchange.marks += mark_of(stamp, read_at)
        self.bytes += len(data)
        if not exchange.hot or len(exchange.pieces) >= MANY:
            self.add(exchange)
            if len(exchange.pieces) > _FEW and _may_be_hot(exchange):
                exchange.hot = exchange.room

    def slice(self) -> None:
        """Takes up to 128 pieces apart."""
        left = _SLICE
        while self._waiting and left > 0:
            exchange = self._waiting.popleft()
            exchange.queued = False
            pieces, marks = exchange.pieces, exchange.marks
            if pieces and len(pieces) * len(pieces[0]) > _SLICE_BYTES:
                left = min(left, max(_SLICE_BYTES // len(pieces[0]), 1))
            exchange.pieces, exchange.marks = pieces[left:], marks[left * MARK :]
            if len(pieces) > left:
                pieces, marks = pieces[:left], marks[: left * MARK]
            left -= len(pieces) + 1
            self._understand(exchange, pieces, marks)
            if exchange.pieces:
                self.add(exchange)
            elif exchange.ended and not exchange.queued:
                self.whole(exchange)

    def finish(self, exchange: Exchange) -> None:
        """Understands at once all that is left of an exchange that has ended; its turn in the queue is given up."""
        self._waiting.remove(exchange)
        exchange.queued = False
        self._understand(exchange, *_taken_from(exchange))
        self.whole(exchange)

    def arrivals(self, exchange: Exchange, marks: bytearray) -> list[int]:
        """When pieces reached this host (monotonic ns): by the kernel's stamps, where those can be true."""
        found = arrivals_of(marks, self.offset.ns, exchange.t_send)
        if found is None:
            return [self.arrival(exchange, *pair) for pair in pairs_of(marks)]
        exchange.lag_ns = max(exchange.lag_ns, found[1])
        return found[0]

    def arrival(self, exchange: Exchange, realtime: int, read_at: int) -> int:
        """When a piece reached this host (monotonic ns): by the kernel's stamp (realtime ns, 0 without one), if it can
        be true.

        A stamp from before the send or after the read comes from a clock that was set in between.
        """
        at = realtime - self.offset.ns
        if realtime and exchange.t_send <= at <= read_at:
            lag = read_at - at
            if lag > exchange.lag_ns:
                exchange.lag_ns = lag
            return at
        exchange.kernel = False
        return read_at

    def settled(self, exchange: Exchange) -> bool:
        """Understands at once what there is of an exchange; True if its reply is complete."""
        self._feed(exchange, *_taken_from(exchange))
        return exchange.reply is not None and exchange.reply.complete and not exchange.ended

    def _understand(self, exchange: Exchange, pieces: list[bytes], marks: bytearray) -> None:
        """Takes pieces apart, and sees whether they were the last."""
        at = self._feed(exchange, pieces, marks)
        reply = exchange.reply
        if reply is None or exchange.pieces:
            return
        exchange.hot = exchange.room if reply.chunk_ns and _may_be_hot(exchange) else 0
        if exchange.closed:
            self._try(exchange, reply, reply.end_of_input)
        elif reply.complete and not exchange.ended:
            self.over(exchange, at)

    def _feed(self, exchange: Exchange, pieces: list[bytes], marks: bytearray) -> int:
        """Takes pieces apart; when the last of them arrived."""
        self.bytes -= sum(map(len, pieces))
        exchange.last_read = max(exchange.last_read, last_read_of(marks))
        reply, more = exchange.reply, not (exchange.ended or exchange.closed)
        if reply is None or (more and not pieces):
            return exchange.t_end
        arrivals = self.arrivals(exchange, marks) if pieces else []
        self._try(exchange, reply, lambda: reply.feed_many(pieces, arrivals, more))
        return arrivals[-1] if arrivals else exchange.t_end

    def _try(self, exchange: Exchange, reply: Reply, feed: Callable[[], None]) -> None:
        """Lets a reply take something, unless it has been found to be none before."""
        if reply.malformed:
            return
        try:
            feed()
        except MalformedReply as error:
            reply.malformed = True
            self.broken(exchange, str(error))


def _taken_from(exchange: Exchange) -> tuple[list[bytes], bytearray]:
    """The pieces of an exchange with their marks, which are no longer its own."""
    taken = exchange.pieces, exchange.marks
    exchange.pieces, exchange.marks = [], bytearray()
    return taken


def _may_be_hot(exchange: Exchange) -> bool:
    """True if the bytes of its pieces alone show where the reply may end."""
    reply = exchange.reply
    return reply is not None and reply.stream and reply.head.chunked and exchange.plain


def ends(exchange: Exchange, reply: Reply, data: bytes) -> bool:
    """True if the reply ends with this piece, as far as its bytes show it; ``exchange.left`` counts a known length."""
    if reply.head.chunked:
        if len(data) >= 7:
            return data.endswith(b"\r\n0\r\n\r\n")
        tail = b"".join(exchange.pieces[-7:])
        return tail.endswith(b"\r\n0\r\n\r\n") or (tail == b"0\r\n\r\n" and reply.between_chunks)
    if exchange.left is None:
        return False
    exchange.left -= len(data)
    return exchange.left <= 0
