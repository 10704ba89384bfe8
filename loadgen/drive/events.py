"""The body of a streamed reply, cut into events: server-sent events (WHATWG HTML, section 9.2) or NDJSON.

In: bytes of the body in any pieces. Out: the data of events as they end. `said.py` says what they mean.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

from loadgen.drive.http import MalformedReply

SEVERAL = -1
"""In place of the offset: the event's data stood in more than one line."""
FOREIGN = -2
"""In place of the offset: the body does not begin as such a stream does; this is its first line."""

_FIELDS = (b"data", b"event", b"id", b"retry", b"")
"""Fields of server-sent events; the empty one is a comment."""


class Events:
    """Takes bytes, gives events. ``open``: an event has begun and not ended."""

    __slots__ = ("_begun", "_data", "_held", "_limit", "_ndjson", "_rest", "_scanned", "open")

    def __init__(self, framing: Literal["sse", "ndjson"], limit: int) -> None:
        self.open = False
        self._ndjson = framing == "ndjson"
        self._limit = limit
        self._rest = bytearray()
        self._scanned = 0
        self._data: list[bytes] = []
        self._held = 0
        self._begun = False

    def take(self, data: bytes) -> Iterable[tuple[bytes, int, bytes]]:
        """(data, offset, raw) of each event that ends in ``data``. ``raw`` is the event with its terminator, and its
        data begins there at ``offset``, if it stands in one line (else SEVERAL, or FOREIGN).

        An event ends at an empty line, in NDJSON at every line end. Raises MalformedReply for one that is too long.
        """
        alone = data.startswith(b"data:") and data.endswith(b"\n\n") and data.find(b"\n") == len(data) - 2
        if alone and not self.open and not self._ndjson and len(data) <= self._limit:  # as it nearly always is
            self._begun = True
            offset = 6 if data.startswith(b" ", 5) else 5
            return ((data[offset:-2], offset, data),)
        return self._take(data)

    def _take(self, data: bytes) -> Iterator[tuple[bytes, int, bytes]]:
        rest = self._rest
        rest += data
        start = 0
        while (stop := rest.find(b"\n", max(start, self._scanned))) >= 0:
            raw = bytes(rest[start : stop + 1])
            start = stop + 1
            if len(raw) + self._held > self._limit:
                self._too_long()
            event = self._whole_line(raw, raw[:-1].removesuffix(b"\r"))
            if event is not None:
                self._begun = True
                yield event
        del rest[:start]
        self._scanned = len(rest)
        self.open = bool(rest or self._data)
        if len(rest) + self._held > self._limit:
            self._too_long()

    def last(self) -> tuple[Iterable[tuple[bytes, int, bytes]], bool]:
        """What is left at the end of the body, taken as an event, and whether it may be only the start of one."""
        begins = b"{" if self._ndjson else b"data:"
        cut = begins.startswith(self._rest[: len(begins)])
        return self.take(b"\n" if self._ndjson else b"\n\n"), cut

    def _whole_line(self, raw: bytes, line: bytes) -> tuple[bytes, int, bytes] | None:
        if self._ndjson:
            return (line, 0, raw) if line else None
        if line.startswith(b"data:"):
            self._data.append(raw)
            self._held += len(raw)
            return None
        if line:  # a comment, or a field that says nothing about tokens (event:, id:, retry:)
            known = self._begun or self._data or line.partition(b":")[0] in _FIELDS
            return None if known else (line, FOREIGN, raw)
        if not self._data:
            return None
        data = [line[5:].rstrip(b"\r\n").removeprefix(b" ") for line in self._data]
        event = b"".join(self._data) + raw
        self._data.clear()
        self._held = 0
        return b"\n".join(data), event.index(data[0]) if len(data) == 1 else SEVERAL, event

    def _too_long(self) -> None:
        raise MalformedReply(
            f"an event is longer than {self._limit} bytes; raise load.max_event_bytes if that is right"
        )
