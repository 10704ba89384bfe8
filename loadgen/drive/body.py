"""The body of an HTTP reply out of its framing and its coding: chunked (RFC 9112, section 7.1) and gzip.

In: pieces as the socket gave them. Out: the bytes of the body. Pure, and the same for any cutting into pieces.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from loadgen.drive.http import MalformedReply

_LINE_LIMIT = 16384
_TRAILER_LIMIT = 65536
_GZIP_RATIO = 200
_GZIP_FREE = 1 << 20
"""A compressed reply that grows to more than a MiB and by more than this ratio is refused: real text compresses 3 to
20 times, and only what repeats itself, as a reply may for a while, some hundred times."""
_HEX = b"0123456789abcdefABCDEF"


def chunk_size(line: bytes) -> int:
    """The number in a chunk's first line, -1 where that is no hexadecimal number or an absurd one."""
    return int(line, 16) if line and len(line) <= 15 and not line.strip(_HEX) else -1


class Chunked:
    """Takes chunked framing off. ``complete``: the body has ended; ``surplus``: bytes came after that.

    ``between``: the next byte begins a chunk, so nothing of the framing is half read.
    """

    __slots__ = ("_left", "_line", "_state", "_trailer", "between", "complete", "surplus")

    def __init__(self) -> None:
        self.between = True
        self.complete = False
        self.surplus = False
        self._state = "size"
        self._line = b""
        self._left = 0
        self._trailer = 0

    def cut(self, piece: bytes) -> Iterator[bytes]:
        """The data in a piece, chunk by chunk. Raises MalformedReply for framing that is none."""
        position, end = 0, len(piece)
        while position < end and not self.complete:
            if self._state == "data":
                data = piece[position : position + self._left]
                position += len(data)
                self._left -= len(data)
                if self._left == 0:
                    self._state = "crlf"
                yield data
                continue
            newline = piece.find(b"\n", position)
            stop = end if newline < 0 else newline + 1
            self._line += piece[position:stop]
            position = stop
            if len(self._line) > _LINE_LIMIT:
                raise MalformedReply(f"a line of the chunked framing is longer than {_LINE_LIMIT} bytes")
            if newline >= 0:
                line, self._line = self._line.rstrip(b"\r\n"), b""
                self._take(line)
        self.between = self._state == "size" and not self._line
        self.surplus = position < end

    def whole(self, piece: bytes) -> tuple[int, int, int]:
        """Where the data of the chunk that a piece begins with start and stop, and where the next chunk starts; zeros
        if not all of it is there. It is for the caller to take the data; nothing is remembered of them."""
        line = piece.find(b"\r\n", 0, 20) if self.between else -1
        size = chunk_size(piece[:line]) if line > 0 else -1
        stop = line + 2 + size
        return (line + 2, stop, stop + 2) if size > 0 and piece[stop : stop + 2] == b"\r\n" else (0, 0, 0)

    def to_end(self, piece: bytes) -> int:
        """How many bytes of a piece go to the end of the chunk that it goes on with; all of them if there is none."""
        return min(self._left + 2, len(piece)) if self._state == "data" else len(piece)

    def lacks(self, data: bytes) -> bool:
        """True if the data, which begin with a chunk, end before it does."""
        line = data.find(b"\r\n", 0, 20)
        size = chunk_size(data[:line]) if line > 0 else 0
        return len(data) < line + 4 + size if size > 0 else line < 0 and len(data) < 18

    def _take(self, line: bytes) -> None:
        """Takes a line between chunk data: a size, the line end after data, a trailer field."""
        if self._state == "crlf":
            if line:
                raise MalformedReply(f"chunk data is not followed by a line end but by {line[:20]!r}")
            self._state = "size"
        elif self._state == "trailer":
            self.complete = not line
            self._trailer += len(line)
            if self._trailer > _TRAILER_LIMIT:
                raise MalformedReply(f"the trailer of the reply is longer than {_TRAILER_LIMIT} bytes")
        else:
            self._left = chunk_size(line.split(b";", 1)[0].strip(b" \t"))
            if self._left < 0:
                raise MalformedReply(f"chunk size {line[:20]!r} is no hexadecimal number")
            self._state = "data" if self._left else "trailer"


class Gunzip:
    """Takes gzip off, as far as its growth can be that of text."""

    __slots__ = ("_inflate", "_plain", "_wire")

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(31)
        self._wire = 0
        self._plain = 0

    def take(self, data: bytes) -> bytes:
        """The plain bytes. Raises MalformedReply for bytes that are not gzip, or grow too much."""
        self._wire += len(data)
        limit = max(_GZIP_RATIO * self._wire, _GZIP_FREE) - self._plain
        try:
            plain = self._inflate.decompress(data, limit + 1)
        except zlib.error as error:
            raise MalformedReply(f"the body says it is gzip and is not: {error}") from error
        self._plain += len(plain)
        if len(plain) > limit:
            raise MalformedReply(f"a gzip body grows more than {_GZIP_RATIO} times")
        return plain
