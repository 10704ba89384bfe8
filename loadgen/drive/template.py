"""A template is made of one event of a stream, and what it is made of: JSON strings and their spelling.

In: an event that was decoded the slow way, and what the backend made of it. Out: a `scan.Template`, or None where its
slots cannot be told apart for certain. To be sure of them the template is tried once with probe values through the
backend itself.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import msgspec

from loadgen.backends import Backend
from loadgen.drive.scan import Template, Vocabularies
from loadgen.record import Chunk

_IDS = (b'"token_ids":[', b'"token_ids": [', b'"tokens":[', b'"tokens": [')
_PROBE = "loadgen-probe"

_string = msgspec.json.Decoder(str).decode


def spelled(texts: Sequence[bytes]) -> str:
    """The text that JSON-escaped pieces spell together. Raises ValueError if that is no inside of a string.

    Halves of a surrogate pair may stand in two pieces; one that stays alone becomes U+FFFD.
    """
    whole = b'"' + b"".join(texts) + b'"'
    try:
        return _string(whole)
    except ValueError:
        text: str = json.loads(whole.decode())
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def escaped(text: str) -> bytes:
    """A text as the inside of a JSON string. Half of a surrogate pair stays one."""
    try:
        return msgspec.json.encode(text)[1:-1]
    except UnicodeEncodeError:
        return json.dumps(text).encode()[1:-1]


def make_template(
    event: bytes, decoded: Chunk, data_start: int, backend: Backend, vocabularies: Vocabularies | None = None
) -> Template | None:
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
    between = None if ids is None else pieces[1]
    return Template(pieces[0], between, pieces[-1], ids_first, vocabularies)


def _slot(event: bytes, text: str) -> tuple[int, int] | None:
    """Where the text stands in the event, as one of the two ways of writing JSON; None if that is not certain."""
    for form in (escaped(text), json.dumps(text).encode()[1:-1]):
        if event.count(b'"' + form + b'"') == 1:
            start = event.index(b'"' + form + b'"') + 1
            return start, start + len(form)
    return None


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
