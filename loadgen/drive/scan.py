"""The fast way through a stream of nearly equal events: compare with a template instead of decoding JSON.

The events of one stream differ in the generated text, perhaps in the token ids, and in nothing else. Once one event
has been decoded the slow way, a `Template` of it is made: the bytes before, between and after these slots. An event
that fits is understood by comparing bytes; every other goes the slow way, so the template may be wrong about speed but
never about meaning. To be sure of the slots, the template is tried once with probe values through the backend itself.

In: payloads (whole events) as bytes. Out: the JSON-escaped text of each event and its number of tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from loadgen.backends import Backend
from loadgen.record import Chunk

_IDS = (b'"token_ids":[', b'"token_ids": [', b'"tokens":[', b'"tokens": [')
_PROBE = "loadgen-probe"


class Template:
    """The constant bytes of a stream's events: ``before`` text ``between`` ids ``after`` (``between`` None: no ids)."""

    __slots__ = ("after", "before", "between", "chunk_end", "ids_first", "separator", "sizes")

    def __init__(self, before: bytes, between: bytes | None, after: bytes, ids_first: bool = False) -> None:
        self.before, self.between, self.after, self.ids_first = before, between, after, ids_first
        self.separator = after + before
        self.chunk_end = after + b"\r\n"
        self.sizes: dict[bytes, int] = {}

    def run(self, pieces: Sequence[bytes], start: int, texts: list[bytes]) -> int:
        """Takes pieces from ``start`` on while each is one HTTP chunk that holds one event of one token.

        Adds the escaped text of each to ``texts``; the number of pieces taken. This is the way of nearly every token
        of a paced stream, so it is written for speed: some 0.6 microseconds a piece.
        """
        before, end, between, sizes = self.before, self.chunk_end, self.between, self.sizes
        head, tail = len(before), len(end)
        for number in range(start, len(pieces)):
            piece = pieces[number]
            at = piece.find(b"\r\n", 1, 9) + 2
            if not (piece.endswith(end) and piece.startswith(before, at)):
                return number - start
            size = len(piece) - at - 2
            line = piece[: at - 2]
            if sizes.get(line) != size:
                if _hexadecimal(line) != size:
                    return number - start
                sizes[line] = size
            text = piece[at + head : -tail]
            if between is not None:
                text, middle, ids = text.partition(between)
                if self.ids_first:
                    text, ids = ids, text
                if not middle or not ids.isdigit():
                    return number - start
            elif not text:
                return number - start
            if b'"' in text or b"\n" in text or text.endswith(b"\\"):
                return number - start
            texts.append(text)
        return len(pieces) - start

    def match(self, payload: bytes) -> list[tuple[bytes, int]] | None:
        """(escaped text, tokens) of each event in a payload of whole events; None if any of them does not fit.

        An event counts as one token where it has no ids; empty text without ids does not fit, since whether such an
        event carries a token is for the backend to say.
        """
        before, after = self.before, self.after
        if not (payload.startswith(before) and payload.endswith(after)):
            return None
        if len(payload) < len(before) + len(after):
            return None
        found = []
        for slot in payload[len(before) : -len(after)].split(self.separator):
            text, tokens = slot, 1
            if self.between is not None:
                text, middle, ids = slot.partition(self.between)
                if self.ids_first:
                    text, ids = ids, text
                if not middle or not ids.isdigit():
                    return None
            elif not text:
                return None
            if b'"' in text or b"\n" in text or text.endswith(b"\\"):
                return None
            found.append((text, tokens))
        return found


def _hexadecimal(line: bytes) -> int:
    try:
        return int(line, 16) if line.isalnum() else -1
    except ValueError:
        return -1


def make_template(event: bytes, decoded: Chunk, data_start: int, backend: Backend) -> Template | None:
    """The template of an event, or None where its slots cannot be told apart for certain.

    ``event`` is the whole event with its terminator; its JSON begins at ``data_start``. ``decoded`` is what the
    backend made of it.
    """
    if not decoded.text or decoded.finish or decoded.error or decoded.usage or decoded.server_times:
        return None
    text = _slot(event, decoded.text)
    if text is None:
        return None
    slots = [text]
    ids = _ids_slot(event) if decoded.tokens else None
    if decoded.tokens and ids is None:
        return None
    if ids is not None:
        slots = sorted([text, ids])
    pieces, last = [], 0
    for start, end in slots:
        pieces.append(event[last:start])
        last = end
    pieces.append(event[last:])
    ids_first = ids is not None and ids < text
    if not _probe(pieces, ids is not None, ids_first, data_start, backend):
        return None
    if ids is None:
        return Template(pieces[0], None, pieces[1])
    return Template(pieces[0], pieces[1], pieces[2], ids_first)


def _slot(event: bytes, text: str) -> tuple[int, int] | None:
    escaped = msgspec.json.encode(text)
    if event.count(escaped) != 1:
        return None
    start = event.index(escaped) + 1
    return start, start + len(escaped) - 2


def _ids_slot(event: bytes) -> tuple[int, int] | None:
    for key in _IDS:
        if event.count(key) == 1:
            start = event.index(key) + len(key)
            return start, event.index(b"]", start)
    return None


def _probe(pieces: list[bytes], with_ids: bool, ids_first: bool, data_start: int, backend: Backend) -> bool:
    """True if probe values in the slots come out of the backend as the text and the tokens, and nothing else does."""
    fills = [_PROBE.encode()]
    if with_ids:
        fills.insert(0 if ids_first else 1, b"1,2,3")
    event = pieces[0]
    for fill, piece in zip(fills, pieces[1:], strict=True):
        event += fill + piece
    expected = Chunk(text=_PROBE, tokens=3 if with_ids else None)
    try:
        decoded: Any = msgspec.json.decode(event[data_start:])
        return backend.chunk(decoded) == expected
    except (msgspec.DecodeError, AttributeError, KeyError, TypeError, IndexError):
        return False
