"""Bytes of one HTTP reply, with the moment each piece arrived, become events, and events become what was measured.

In: pieces of the reply as the socket gave them, each with its arrival in nanoseconds. Out: the arrival of every
token-bearing event, the text, the server's counts, and how the reply ended. Pure: no clock, no socket; any cutting
of the same bytes into pieces gives the same events. Arrival of an event is the arrival of its last byte.

Most pieces of a stream are one HTTP chunk that holds one event like the last; those take the way of `scan.Template`.
Everything else goes byte by byte through the framing (`body.py`) and the lines of the stream (`events.py`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from itertools import chain, repeat
from typing import Any

import msgspec

from loadgen.backends import Backend
from loadgen.drive.body import Chunked, Gunzip
from loadgen.drive.events import FOREIGN, Events
from loadgen.drive.http import Head, MalformedReply
from loadgen.drive.laid import Taken
from loadgen.drive.said import Said, meaning, meaning_of
from loadgen.drive.scan import Template, Vocabularies
from loadgen.drive.template import make_template
from loadgen.record import Chunk

_RETRY_TEMPLATE = 16
"""After a template did not fit, this many events go by before another is made."""
_HELD = 16384
"""The start of a chunk waits for its end up to this length."""


class Reply:
    """What is known of one reply so far. Feed it with `feed`; read the fields when the exchange has ended.

    ``chunk_ns`` holds the arrival of each token-bearing event and ``chunk_tok`` its tokens (0 where the server did not
    say how many); ``coalesced`` counts pieces that held several HTTP chunks with tokens, of which only the last has a
    stamp of its own. ``complete`` is True once the framing says that the body has ended; ``surplus`` if bytes came
    after that. ``malformed``: its bytes were found to be no reply. ``body`` is the body of a reply that is no stream.
    """

    def __init__(
        self, head: Head, backend: Backend, stream: bool, max_event_bytes: int, known: Vocabularies | None = None
    ) -> None:
        self.head = head
        self.backend = backend
        self.stream = stream and head.status == 200 and not head.is_html
        self.max_body_bytes = max_event_bytes
        self.chunk_ns: list[int] = []
        self.chunk_tok: list[int] = []
        self.said = Said()
        self.complete = head.length == 0
        self.coalesced = 0
        self._chunks_here = 0
        self.surplus = False
        self.malformed = False
        self.body = bytearray()
        self._events = Events(backend.FRAMING, max_event_bytes)
        self._last_at = 0
        self._left = head.length or 0
        self._chunked = Chunked() if head.chunked else None
        self._gunzip = Gunzip() if head.gzip else None
        self._template: Template | None = None
        self._wait = 0
        self._vocabularies = known
        self._held: tuple[list[bytes], Sequence[int]] = ([], [])

    def feed(self, piece: bytes, at: int) -> None:
        """Takes the next piece, which arrived at ``at`` (ns). Raises MalformedReply for bytes that are no reply."""
        self._feed(piece, at)
        self._piece_over()

    def feed_many(self, pieces: list[bytes], arrivals: Sequence[int], more: bool = False) -> None:
        """Takes several pieces with their arrivals, as `feed` would one by one. Raises MalformedReply.

        What is familiar is taken all at once; of the rest one HTTP chunk at a time goes the slow way, since what
        comes behind it may be familiar again. With ``more`` (further pieces may come) the start of a chunk at the end
        is kept for the next call, where it will be whole. ``pieces`` is used up.
        """
        if self._held[0]:
            pieces, arrivals = self._held[0] + pieces, [*self._held[1], *arrivals]
            self._held = ([], [])
        at = 0
        while at < len(pieces):
            before, left = at, len(pieces[at])
            at = self._feed_familiar(pieces, arrivals, at)
            if at < len(pieces) and at == before and left == len(pieces[at]):
                if more and self._template is not None and self._cut_short(pieces[at:]):
                    self._held = (pieces[at:], arrivals[at:])
                    return
                pieces[at] = self._feed_one(pieces[at], arrivals[at])
                if not pieces[at]:
                    self._piece_over()
                    at += 1

    def _feed_one(self, piece: bytes, at: int) -> bytes:
        """Takes the HTTP chunk that a piece begins with, or all of the piece; what is left of it."""
        if self._chunked is None or not self.stream or self.complete:
            self._feed(piece, at)
            return b""
        start, stop, after = self._chunked.whole(piece)
        if after:
            self._feed_chunk(piece[start:stop], at)
        else:
            after = self._chunked.to_end(piece)
            self._feed(piece[:after], at)
        return piece[after:]

    def _cut_short(self, pieces: list[bytes]) -> bool:
        """True if nothing but the start of a chunk is left, and not much of it."""
        left = sum(map(len, pieces))
        return self.between_chunks and left < _HELD and self._chunked.lacks(b"".join(pieces))  # type: ignore[union-attr]

    def _feed_familiar(self, pieces: list[bytes], arrivals: Sequence[int], at: int) -> int:
        """Takes what is familiar from piece ``at`` on; the number of the piece with the first byte that is not."""
        template = self._template
        if template is None or self._gunzip is not None or not self.between_chunks or self._events.open:
            return at
        taken = template.take(pieces[at:] if at else pieces)
        if taken is None:
            return at
        self._add_familiar(taken.texts)
        self._count_familiar(taken, arrivals[at:] if at else arrivals)
        at += taken.pieces
        if taken.rest:
            pieces[at] = pieces[at][taken.rest :]
        return at

    def _add_familiar(self, texts: Sequence[bytes]) -> None:
        self.said.texts += texts
        self.chunk_tok += [1 if self._template is not None and self._template.between is not None else 0] * len(texts)

    def _count_familiar(self, taken: Taken, arrivals: Sequence[int]) -> None:
        """Notes the arrivals of familiar events, and in how many pieces several of their chunks had merged."""
        if taken.counts is None or taken.chunks is None:
            self.chunk_ns += arrivals[: taken.pieces]
            self._chunks_here += 1
            self._piece_over()
            return
        self.chunk_ns += chain.from_iterable(map(repeat, arrivals, taken.counts))
        first, *others = taken.chunks
        self._chunks_here += first
        if taken.pieces:
            self._piece_over()
            whole = others[: taken.pieces - 1]
            self.coalesced += len(whole) - whole.count(0) - whole.count(1)
            self._chunks_here = sum(others[taken.pieces - 1 :])

    def _piece_over(self) -> None:
        self.coalesced += self._chunks_here > 1
        self._chunks_here = 0

    @property
    def between_chunks(self) -> bool:
        """True if the next byte begins an HTTP chunk."""
        return self._chunked is not None and self._chunked.between and not self.complete and not self._held[0]

    def end_of_input(self) -> None:
        """The connection was closed. That is how a reply without a length ends; for the others it is a cut.

        Raises MalformedReply if what came is no reply.
        """
        if not self.complete and self._chunked is None and self.head.length is None:
            self._finish()

    def close(self) -> None:
        """Looks at what only the whole reply shows: the JSON of one that was not streamed, the spelling of all text.

        Raises MalformedReply.
        """
        if self.head.status != 200:
            return
        if self.head.is_html:
            raise MalformedReply(f"the server answered 200 with HTML instead of JSON: {self.excerpt()}")
        if not self.stream and self.complete:
            self._chunk(meaning(bytes(self.body), self.backend.whole), None)
        self.said.spell()

    def excerpt(self) -> str:
        """The start of the body, on one line, for an error text."""
        return " ".join(bytes(self.body[:300]).decode("utf-8", "replace").split())[:200]

    def _feed(self, piece: bytes, at: int) -> None:
        """Takes a piece, or a part of one that goes on."""
        if self.complete:
            self.surplus = self.surplus or bool(piece)
        elif self._chunked is not None:
            for data in self._chunked.cut(piece):
                self._feed_chunk(data, at)
            if self._chunked.complete:
                self.surplus = self._chunked.surplus
                self._finish()
        elif self.head.length is not None:
            self.surplus = len(piece) > self._left
            body = piece[: self._left]
            self._left -= len(body)
            self._payload(body, at)
            if self._left == 0:
                self._finish()
        else:
            self._payload(piece, at)

    def _feed_chunk(self, data: bytes, at: int) -> None:
        """Takes what stands in an HTTP chunk, or a part of it."""
        before = len(self.chunk_ns)
        self._payload(data, at)
        self._chunks_here += len(self.chunk_ns) > before

    def _payload(self, data: bytes, at: int) -> None:
        if self._gunzip is not None:
            data = self._gunzip.take(data)
        if not data:
            return
        self._last_at = at
        if not self.stream:
            self.body += data
            if len(self.body) > self.max_body_bytes:
                raise MalformedReply(
                    f"the reply is longer than {self.max_body_bytes} bytes; raise load.max_event_bytes if that is right"
                )
            return
        while data and not self._payload_familiar(data, at):
            # what comes behind the first event, of which a template is made, may be like it
            cut = data.find(b"\n\n") + 2 if self._template is None else len(data)
            data, rest = (data[:cut], data[cut:]) if cut >= 2 else (data, b"")
            for event in self._events.take(data):
                self._event(event, at)
            data = rest

    def _payload_familiar(self, data: bytes, at: int) -> bool:
        """Takes whole, familiar events, if the data are nothing else."""
        texts = self._template.slots(data) if self._template is not None and not self._events.open else None
        if texts is None:
            return False
        self._add_familiar(texts)
        self.chunk_ns += [at] * len(texts)
        return True

    def _finish(self) -> None:
        """The body has ended. A last event without its line end counts if it is whole; the start of one does not."""
        self.complete = True
        if self.stream and self._events.open:
            events, cut = self._events.last()
            try:
                for event in events:
                    self._event(event, self._last_at)
            except MalformedReply:
                if not cut:
                    raise

    def _event(self, event: tuple[bytes, int, bytes], at: int) -> None:
        """Takes an event of a stream, which ended at ``at``."""
        data, offset, raw = event
        data = data.strip()
        if data == b"[DONE]":
            self.said.done = True
            return
        if not data:
            return
        if offset == FOREIGN:
            self._no_stream(data)
            return
        chunk = meaning(data, self.backend.chunk)
        self._chunk(chunk, at)
        if offset >= 0 and chunk.carries_token and not chunk.cumulative:
            self._wait -= 1
            if self._wait <= 0:
                self._template = make_template(raw, chunk, offset, self.backend, self._vocabularies)
                self._wait = _RETRY_TEMPLATE

    def _no_stream(self, line: bytes) -> None:
        """The body does not begin like server-sent events: an error object in their place, or something else."""
        with contextlib.suppress(MalformedReply):
            self.said.error = meaning(line, self.backend.chunk).error
        if self.said.error is None:
            start = line[:120].decode("utf-8", "replace")
            raise MalformedReply(f"the server answered 200, but not with a stream of events: {start}")

    def take_event(self, event: Any, at: int) -> None:
        """Takes an event that a client has decoded already. Raises MalformedReply if it is none of this protocol."""
        if not self.stream:
            self.body += msgspec.json.encode(event)
            return
        self._chunk(meaning_of(event, self.backend.chunk), at)

    def _chunk(self, chunk: Chunk, at: int | None) -> None:
        chunk = self.said.take(chunk)
        if chunk.carries_token and at is not None:
            self.chunk_ns.append(at)
            self.chunk_tok.append(chunk.tokens or 0)
        elif at is None:
            self.chunk_tok.append(chunk.tokens or 0)
