"""Streams put into HTTP and cut into pieces, and a reply that is fed with them.

`wires` says, for each event, in which piece its last byte lies, as it follows from how the pieces were made.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from drive_streams import Stream
from hypothesis import strategies as st

from loadgen import backends
from loadgen.drive.http import MalformedReply, parse_head
from loadgen.drive.outcome import Exchange, judge
from loadgen.drive.reply import Reply
from loadgen.drive.schedule import Send
from loadgen.record import Prompt

LIMIT = 1 << 20


@dataclass
class Wire:
    """A reply in pieces. ``arrivals`` holds the number of the piece with the last byte of each token-bearing event."""

    pieces: list[bytes]
    arrivals: list[int]
    closes: bool


@st.composite
def written(draw: st.DrawFn, stream: Stream) -> tuple[bytes, list[int], list[int]]:
    """(body, end of each token-bearing event, ends of all events) as the server's writer would write it."""
    ndjson = stream.backend == "ollama"
    newline = draw(st.sampled_from([b"\n", b"\n", b"\r\n"]))
    before = draw(st.sampled_from([b"data: ", b"data: ", b"data:"]))
    name = draw(st.sampled_from([b"", b"", b"event: message" + newline, b"id: 7" + newline + b"retry: 3" + newline]))
    comments = draw(st.sampled_from([False, False, True]))
    body, ends, counting = b"", [], []
    for event in stream.events:
        data = event.data.encode()
        if comments and not ndjson and draw(st.booleans()):
            body += b": still here" + newline + newline
        body += data + newline if ndjson else name + before + data + newline + newline
        ends.append(len(body))
        if event.counts:
            counting.append(len(body))
    return body, counting, ends


@st.composite
def wires(draw: st.DrawFn, stream: Stream) -> Wire:
    """The reply of a stream in HTTP, in pieces that were cut anywhere."""
    body, counting, ends = draw(written(stream))
    framing = draw(st.sampled_from(["chunked", "chunked", "chunked", "length", "close"]))
    zipped = draw(st.sampled_from([False] * 11 + [True]))
    payload = gzip.compress(body) if zipped else body
    fields = [b"content-type: text/event-stream"] + [b"content-encoding: gzip"] * zipped
    data, where = payload, list(range(1, len(payload) + 1))
    if framing == "chunked":
        fields.append(b"Transfer-Encoding: chunked")
        cuts = draw(cuts_of(len(payload), ends if not zipped else []))
        data, where = chunked(payload, cuts, *draw(st.tuples(*EXTRAS)))
    elif framing == "length":
        fields.append(b"content-length: %d" % len(payload))
    head = b"HTTP/1.1 200 OK\r\n" + b"\r\n".join(fields) + b"\r\n\r\n"
    after_chunks = [w + 2 for w, following in zip(where, [*where[1:], len(data)], strict=True) if following - w > 1]
    cuts = draw(cuts_of(len(data), after_chunks or ends))
    pieces = [head, *(data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True))]
    if zipped:
        arrivals = unzipped_in(pieces, where, payload, counting)
    else:
        arrivals = [piece_of(pieces, len(head) + where[end - 1]) for end in counting]
    return Wire(pieces, arrivals, framing == "close")


EXTRAS = (
    st.sampled_from([*[b""] * 8, b";ext=1", b' ; name="v"']),
    st.sampled_from([*[b""] * 4, b"X-Trailer: 1\r\n"]),
    st.sampled_from([b"%x", b"%x", b"%X", b"%04x"]),
)


@st.composite
def cuts_of(draw: st.DrawFn, length: int, natural: Sequence[int]) -> list[int]:
    """Where to cut: mostly at natural places (the end of an event or of a chunk), else anywhere, or everywhere."""
    kind = draw(st.sampled_from([*["natural"] * 4, "some", "some", "anywhere", "bytes", "whole"]))
    if kind == "natural":
        cuts = list(natural)
    elif kind == "some":
        cuts = draw(st.lists(st.sampled_from(natural), unique=True)) if natural else []
    elif kind == "anywhere":
        cuts = draw(st.lists(st.integers(1, length - 1), unique=True, max_size=12)) if length > 1 else []
    else:
        cuts = list(range(1, length)) if kind == "bytes" else []
    return sorted(cut for cut in cuts if 0 < cut < length)


def chunked(
    payload: bytes, cuts: Sequence[int], extension: bytes, trailer: bytes, form: bytes
) -> tuple[bytes, list[int]]:
    """The payload in HTTP chunks, and for each of its bytes where in the result it ends."""
    data, where = b"", []
    for a, b in zip([0, *cuts], [*cuts, len(payload)], strict=True):
        if a == b:
            continue
        data += form % (b - a) + extension + b"\r\n"
        where += range(len(data) + 1, len(data) + 1 + b - a)
        data += payload[a:b] + b"\r\n"
    return data + b"0\r\n" + trailer + b"\r\n", where


def piece_of(pieces: Sequence[bytes], end: int) -> int:
    """The number of the piece that holds the byte before ``end``."""
    total = 0
    for number, piece in enumerate(pieces):
        total += len(piece)
        if end <= total:
            return number
    raise AssertionError("the byte lies behind the last piece")


def unzipped_in(pieces: Sequence[bytes], where: Sequence[int], payload: bytes, ends: Sequence[int]) -> list[int]:
    """For each end in the plain body the piece with which gzip gives that byte away."""
    inflate, plain, found, done = zlib.decompressobj(31), 0, [], 0
    total = 0
    for number, piece in enumerate(pieces[1:], 1):
        total += len(piece)
        upto = sum(w <= total for w in where)
        plain += len(inflate.decompress(payload[done:upto]))
        done = upto
        found += [number for end in ends[len(found) :] if end <= plain]
    return found


class Fed:
    """A reply that was fed pieces, one arrival each, as the driver does it; what became of it."""

    def __init__(self, backend: str, stream: bool = True, limit: int = LIMIT) -> None:
        self.backend = backends.load(backend)
        self.streamed, self.limit = stream, limit
        self.reply: Reply | None = None
        self.error: str | None = None
        self._head = b""

    def feed(self, pieces: Sequence[bytes], at: int = 0, closes: bool = True, batch: int = 0) -> Fed:
        """Feeds pieces that arrive at ``at``, ``at`` + 1 ...; ``batch`` pieces at a time, 0: one by one."""
        waiting: list[tuple[bytes, int]] = []
        try:
            for number, piece in enumerate(pieces, at):
                if self.reply is None:
                    piece = self._begin(piece)
                if self.reply is None:
                    continue
                if not batch:
                    self.reply.feed(piece, number)
                    continue
                waiting.append((piece, number))
                if len(waiting) == batch:
                    self._many(waiting)
            self._many(waiting)
            if closes and self.reply is not None:
                self.reply.end_of_input()
        except MalformedReply as error:
            self.error = str(error)
        return self

    def _many(self, waiting: list[tuple[bytes, int]]) -> None:
        if self.reply is not None and waiting:
            self.reply.feed_many([piece for piece, _ in waiting], [number for _, number in waiting])
            waiting.clear()

    def _begin(self, piece: bytes) -> bytes:
        self._head += piece
        head = parse_head(self._head)
        if head is None:
            return b""
        self.reply = Reply(head, self.backend, self.streamed, self.limit, {})
        return self._head[head.size :]

    def judged(self) -> tuple[str, str | None]:
        """(status, error text) as the record would have them."""
        exchange = Exchange(Send(0, 0, -1), Prompt(source="test", ask_tok=1), "measure")
        exchange.reply = self.reply
        if self.error is None and self.reply is not None:
            try:
                self.reply.close()
            except MalformedReply as error:
                self.error = str(error)
        if self.error is not None:
            exchange.failed, exchange.why = "malformed", self.error
        return judge(exchange)

    @property
    def got(self) -> Reply:
        assert self.reply is not None
        return self.reply
