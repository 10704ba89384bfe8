"""Familiar streams are read many at a time, each once: this is done for every token, and in C where that is built.

A stream is familiar (hot) when its first token is in and the bytes of its pieces alone show where it may end. Its
pieces are kept with their marks and understood later, many together; only what may be the end is looked at at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from loadgen.drive import fast
from loadgen.drive.poll import READ
from loadgen.drive.sockets import LARGE_READ
from loadgen.drive.stamps import mark_of
from loadgen.drive.understand import MANY

_MUCH = 16384
"""A piece of so many bytes is not left to wait for others: this is a flood, and memory is bounded."""

Found = tuple[list[tuple[int, int]], list[tuple[Any, Any, bytes, bytes, int]], list[Any], int]
"""What is ready and for others to read; pieces that may be the last, with connection, exchange, stamp and time of the
read; exchanges of which many pieces wait; and how many bytes were kept."""


def read_on(ready: list[tuple[int, int]], connections: Mapping[int, Any]) -> Found:
    """Reads once each of the ready sockets that carry a familiar stream."""
    if hasattr(fast.native, "read_on"):  # Linux
        found: Found = fast.native.read_on(ready, connections, READ, MANY, _MUCH, LARGE_READ)
        return found
    rest, odd, full, kept = [], [], [], 0
    for item in ready:
        connection = connections.get(item[0]) if item[1] == READ else None
        exchange = None if connection is None else connection.exchange
        if exchange is None or not exchange.hot:
            rest.append(item)
            continue
        size = exchange.hot
        try:
            data, stamp, now = connection.receive(size)  # type: ignore[union-attr]
        except OSError:
            rest.append(item)
            continue
        if len(data) < 7 or (data.endswith(b"\r\n\r\n") and not data.endswith(b"\r\n\r\n\r\n")):
            odd.append((connection, exchange, data, stamp, now))
            continue
        exchange.pieces.append(data)
        exchange.marks += mark_of(stamp, now)
        kept += len(data)
        if len(data) >= size:
            exchange.hot = exchange.room = LARGE_READ
        if len(exchange.pieces) >= MANY or len(data) >= _MUCH:
            full.append(exchange)
    return rest, odd, full, kept
