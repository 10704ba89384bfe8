"""Pieces that were read become chunks, and ended exchanges become records, when there is time for it.

Reading never waits for this. The worker's loop calls `slice` when nothing is ready to be read or sent; if pieces come
in faster than that for long, `full` says that memory asks for a slice all the same.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from loadgen.drive.clock import RealtimeOffset, realtime_ns_of
from loadgen.drive.http import MalformedReply
from loadgen.drive.outcome import Exchange

_SLICE = 64
"""Pieces taken apart between two looks at the sockets: some 50 microseconds."""
_FULL_BYTES = 16 << 20


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
        self.pieces = 0
        self._bytes = 0
        self._waiting: deque[Exchange] = deque()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    @property
    def full(self) -> bool:
        """True when so many bytes are waiting that memory must be bounded."""
        return self._bytes > _FULL_BYTES

    def add(self, exchange: Exchange) -> None:
        """Something of this exchange is left to be understood: pieces, or its end."""
        if not exchange.queued:
            exchange.queued = True
            self._waiting.append(exchange)

    def add_piece(self, exchange: Exchange, data: bytes, stamps: tuple[Any, int]) -> None:
        """Keeps a piece with its control messages and the time at which it was read (ns)."""
        exchange.pieces.append((data, *stamps))
        self.pieces += 1
        self._bytes += len(data)
        if not exchange.queued:
            exchange.queued = True
            self._waiting.append(exchange)

    def slice(self) -> None:
        """Takes up to 64 pieces apart."""
        left = _SLICE
        while self._waiting and left > 0:
            exchange = self._waiting.popleft()
            exchange.queued = False
            pieces = exchange.pieces
            if len(pieces) > left:
                pieces, exchange.pieces = pieces[:left], pieces[left:]
            else:
                exchange.pieces = []
            left -= len(pieces) + 1
            self.pieces -= len(pieces)
            self._feed(exchange, pieces)
            if exchange.pieces:
                self.add(exchange)
            elif exchange.ended and not exchange.queued:
                self.whole(exchange)

    def arrival(self, exchange: Exchange, ancillary: Any, read_at: int) -> int:
        """When a piece reached this host (monotonic ns): by the kernel's stamp, if there is one that can be true.

        A stamp from before the send or after the read comes from a clock that was set in between.
        """
        realtime = realtime_ns_of(ancillary)
        at = realtime - self.offset.ns
        if realtime and exchange.t_send <= at <= read_at:
            lag = read_at - at
            if lag > exchange.lag_ns:
                exchange.lag_ns = lag
            return at
        exchange.kernel = False
        return read_at

    def _feed(self, exchange: Exchange, pieces: list[tuple[bytes, Any, int]]) -> None:
        reply, at = exchange.reply, exchange.t_end
        for data, ancillary, read_at in pieces:
            self._bytes -= len(data)
            if reply is None or exchange.failed == "malformed":
                continue
            at = self.arrival(exchange, ancillary, read_at)
            try:
                reply.feed(data, at)
            except MalformedReply as error:
                self.broken(exchange, str(error))
        if reply is None or exchange.pieces:
            return
        if exchange.closed:
            reply.end_of_input(at)
        elif reply.complete and not exchange.ended:
            self.over(exchange, at)
