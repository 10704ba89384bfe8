"""Bytes of one HTTP reply, with the moment each piece arrived, become events, and events become what was measured.

In: pieces of the reply as the socket gave them, each with its arrival in nanoseconds. Out: the arrival of every
token-bearing event, the text, the server's counts, and how the reply ended. Pure: no clock, no socket; any cutting
of the same bytes into pieces gives the same events. Arrival of an event is the arrival of its last byte.

Most pieces of a stream are one HTTP chunk that holds one event like the last; those take the way of `scan.Template`.
Everything else goes byte by byte through the chunked decoding (RFC 9112, section 7.1) and the line rules of
server-sent events (WHATWG HTML, section 9.2) or NDJSON.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Sequence
from typing import Any

import msgspec

from loadgen.backends import Backend
from loadgen.drive.http import Head, MalformedReply
from loadgen.drive.scan import Template, make_template
from loadgen.record import Chunk, Usage

_GZIP_RATIO = 200
"""A compressed reply that grows by more than this is refused: real text compresses 3 to 20 times."""
_RETRY_TEMPLATE = 16
"""After a template did not fit, this many events go by before another is made."""


class Reply:
    """What is known of one reply so far. Feed it with `feed`; read the fields when the exchange has ended.

    ``chunk_ns`` holds the arrival of each token-bearing event and ``chunk_tok`` its tokens (0 where the server did not
    say how many); ``coalesced`` counts pieces that held several HTTP chunks with tokens, of which only the last has a
    stamp of its own. ``complete`` is True once the framing says that the body has ended.
    """

    def __init__(self, head: Head, backend: Backend, stream: bool, max_event_bytes: int) -> None:
        self.head = head
        self.backend = backend
        self.stream = stream and head.status == 200 and not head.is_html
        self.max_event_bytes = max_event_bytes
        self.chunk_ns: list[int] = []
        self.chunk_tok: list[int] = []
        self.usage: Usage | None = None
        self.finish: str | None = None
        self.error: str | None = None
        self.done = False
        self.server_times: dict[str, Any] | None = None
        self.complete = head.length == 0
        self.coalesced = 0
        self.surplus = False
        self.body = bytearray()
        self._texts: list[bytes] = []
        self._whole: Chunk | None = None
        self._data: list[bytes] = []
        self._left = head.length or 0
        self._framing = bytearray()
        self._state = "size"
        self._inflate = zlib.decompressobj(31) if head.gzip else None
        self._wire = 0
        self._plain = 0
        self._template: Template | None = None
        self._wait = 0

    def feed(self, piece: bytes, at: int) -> None:
        """Takes the next piece, which arrived at ``at`` (ns). Raises MalformedReply for bytes that are no reply."""
        if self.complete:
            self.surplus = self.surplus or bool(piece)
            return
        usual = self._template is not None and not (self.body or self._data) and self._inflate is None
        if usual and self._feed_fast(piece, at):
            return
        if self.head.chunked:
            self._dechunk(piece, at)
        elif self.head.length is not None:
            self.surplus = len(piece) > self._left
            body = piece[: self._left]
            self._left -= len(body)
            self._payload(body, at)
            self.complete = self._left == 0
        else:
            self._payload(piece, at)

    def feed_many(self, pieces: Sequence[bytes], arrivals: Sequence[int]) -> None:
        """Takes several pieces with their arrivals, as `feed` would one by one. Raises MalformedReply."""
        at = 0
        while at < len(pieces):
            template = self._template
            if template is not None and self._between_chunks():
                taken = template.run(pieces, at, self._texts)
                self.chunk_ns += arrivals[at : at + taken]
                self.chunk_tok += [1 if template.between is not None else 0] * taken
                at += taken
            if at < len(pieces):
                self.feed(pieces[at], arrivals[at])
                at += 1

    def _between_chunks(self) -> bool:
        """True if the next byte begins an HTTP chunk and an event."""
        return (
            self.head.chunked
            and self._state == "size"
            and not (self.complete or self._framing or self.body or self._data)
            and self._inflate is None
        )

    def end_of_input(self, at: int) -> None:
        """The connection was closed. That is how a reply without a length ends; for the others it is a cut."""
        if not self.head.chunked and self.head.length is None:
            self.complete = True
            if self.stream and self.body:
                self._payload(b"\n\n" if self.backend.FRAMING == "sse" else b"\n", at)

    def close(self) -> None:
        """Understands a reply that was not streamed, once it is complete. Raises MalformedReply."""
        if self.stream or self.head.status != 200:
            return
        if self.head.is_html:
            raise MalformedReply(f"the server answered 200 with HTML instead of JSON: {self.excerpt()}")
        self._event(bytes(self.body), None, 0, b"")

    def text_sha(self) -> str | None:
        """First 16 hex digits of the SHA-256 of the generated text, None where there is no text."""
        text = self.text()
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16] if text else None

    def text(self) -> str:
        """All generated text."""
        joined = b"".join(self._texts)
        try:
            return str(msgspec.json.decode(b'"' + joined + b'"'))
        except (msgspec.DecodeError, UnicodeDecodeError):  # half a surrogate pair, an unescaped control byte, no UTF-8
            return joined.decode("utf-8", "replace")

    def excerpt(self) -> str:
        """The start of the body, on one line, for an error text."""
        return " ".join(bytes(self.body[:300]).decode("utf-8", "replace").split())[:200]

    # -- the fast way ---------------------------------------------------------------------------------------------

    def _feed_fast(self, piece: bytes, at: int) -> bool:
        """Takes a piece of whole HTTP chunks of whole, familiar events. False (and nothing taken) for any other."""
        template = self._template
        assert template is not None
        if not self.head.chunked:
            found = template.match(piece) if self.head.length is None else None
            if found is None:
                return False
            self._take(found, at)
            return True
        if self._state != "size" or self._framing:
            return False
        position, end, chunks, taken = 0, len(piece), 0, []
        while position < end:
            line = piece.find(b"\r\n", position, position + 10)
            if line < 0:
                return False
            try:
                stop = line + 2 + int(piece[position:line], 16)
            except ValueError:
                return False
            if stop + 2 > end or piece[stop : stop + 2] != b"\r\n":
                return False
            found = template.match(piece[line + 2 : stop])
            if found is None:
                return False
            taken += found
            chunks += 1
            position = stop + 2
        self._take(taken, at)
        self.coalesced += chunks > 1
        return True

    def _take(self, found: list[tuple[bytes, int]], at: int) -> None:
        for text, tokens in found:
            self._texts.append(text)
            self.chunk_ns.append(at)
            self.chunk_tok.append(tokens if self._template and self._template.between is not None else 0)

    # -- the slow way ---------------------------------------------------------------------------------------------

    def _dechunk(self, piece: bytes, at: int) -> None:
        position, end, chunks = 0, len(piece), 0
        while position < end and not self.complete:
            if self._state == "data":
                body = piece[position : position + self._left]
                position += len(body)
                self._left -= len(body)
                if self._left == 0:
                    self._state = "crlf"
                before = len(self.chunk_ns)
                self._payload(body, at)
                chunks += len(self.chunk_ns) > before
                continue
            newline = piece.find(b"\n", position)
            stop = end if newline < 0 else newline + 1
            self._framing += piece[position:stop]
            position = stop
            if len(self._framing) > 16384:
                raise MalformedReply("a line of the chunked framing is longer than 16 KiB")
            if newline < 0:
                break
            line = bytes(self._framing).rstrip(b"\r\n")
            self._framing.clear()
            self._framing_line(line)
        self.coalesced += chunks > 1
        if self.complete and position < end:
            self.surplus = True

    def _framing_line(self, line: bytes) -> None:
        """Takes a line between chunk data: a size, the line end after data, a trailer field."""
        if self._state == "crlf":
            if line:
                raise MalformedReply(f"chunk data is not followed by a line end but by {line[:20]!r}")
            self._state = "size"
        elif self._state == "trailer":
            self.complete = not line
        else:
            size = line.split(b";", 1)[0].strip()
            if not size or len(size) > 15 or not all(c in b"0123456789abcdefABCDEF" for c in size):
                raise MalformedReply(f"chunk size {line[:20]!r} is no hexadecimal number")
            self._left = int(size, 16)
            self._state = "data" if self._left else "trailer"

    def _payload(self, data: bytes, at: int) -> None:
        if self._inflate is not None:
            data = self._unzip(data)
        self.body += data
        if self.stream:
            self._lines(at)
        if len(self.body) > self.max_event_bytes:
            raise MalformedReply(
                f"an event is longer than {self.max_event_bytes} bytes; raise load.max_event_bytes if that is right"
            )

    def _unzip(self, data: bytes) -> bytes:
        assert self._inflate is not None
        self._wire += len(data)
        limit = max(_GZIP_RATIO * self._wire, 65536) - self._plain
        try:
            plain = self._inflate.decompress(data, limit + 1)
        except zlib.error as error:
            raise MalformedReply(f"the body says it is gzip and is not: {error}") from error
        self._plain += len(plain)
        if len(plain) > limit:
            raise MalformedReply(f"a gzip body grows more than {_GZIP_RATIO} times")
        return plain

    def _lines(self, at: int) -> None:
        """Takes whole lines off the body. An event ends at an empty line (SSE) or at every line end (NDJSON)."""
        ndjson = self.backend.FRAMING == "ndjson"
        start = 0
        while (stop := self.body.find(b"\n", start)) >= 0:
            line = bytes(self.body[start:stop]).removesuffix(b"\r")
            raw = bytes(self.body[start : stop + 1])
            start = stop + 1
            if ndjson:
                if line:
                    self._event(line, at, 0, raw)
            elif line.startswith(b"data:"):
                self._data.append(raw)
            elif not line and self._data:
                event = b"".join(self._data) + raw
                data = [d[5:].rstrip(b"\r\n").removeprefix(b" ") for d in self._data]
                offset = event.index(data[0]) if len(data) == 1 else -1
                self._data.clear()
                self._event(b"\n".join(data), at, offset, event)
            # every other line is a comment, or a field that says nothing about tokens (event:, id:, retry:)
        del self.body[:start]

    def _event(self, data: bytes, at: int | None, offset: int, raw: bytes) -> None:
        data = data.strip()
        if data == b"[DONE]":
            self.done = True
            return
        if not data:
            return
        try:
            decoded = msgspec.json.decode(data)
            chunk = self.backend.chunk(decoded) if self.stream else self.backend.whole(decoded)
        except (msgspec.DecodeError, AttributeError, KeyError, TypeError, IndexError, ValueError) as error:
            start = data[:120].decode("utf-8", "replace")
            raise MalformedReply(f"an event is not what this protocol sends ({error}): {start}") from error
        self._chunk(chunk, at)
        if at is not None and offset >= 0 and chunk.carries_token and not chunk.cumulative:
            self._wait -= 1
            if self._wait <= 0:
                self._template = make_template(raw, chunk, offset, self.backend)
                self._wait = _RETRY_TEMPLATE

    def _chunk(self, chunk: Chunk, at: int | None) -> None:
        if chunk.cumulative:
            chunk, self._whole = chunk.after(self._whole), chunk
        if chunk.error is not None and self.error is None:
            self.error = chunk.error
        self.done = self.done or chunk.done
        self.finish = chunk.finish or self.finish
        self.usage = chunk.usage or self.usage
        self.server_times = chunk.server_times or self.server_times
        if chunk.text:
            self._texts.append(msgspec.json.encode(chunk.text)[1:-1])
        if chunk.carries_token and at is not None:
            self.chunk_ns.append(at)
            self.chunk_tok.append(chunk.tokens or 0)
        elif at is None:
            self.chunk_tok.append(chunk.tokens or 0)
