"""The fast way through a stream of nearly equal events: compare with a template instead of decoding JSON.

The events of one stream differ in the generated text, perhaps in the token ids, and in nothing else. Once one event
has been decoded the slow way, a `Template` of it is made: the bytes before, between and after these slots. An event
that fits is understood by comparing bytes; every other goes the slow way, so the template may be wrong about speed but
never about meaning. To be sure of the slots, the template is tried once with probe values through the backend itself.

In: payloads (whole events) as bytes. Out: the JSON-escaped text of each event and its number of tokens.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate, pairwise
from operator import add
from typing import Any, NamedTuple

import msgspec

from loadgen.backends import Backend
from loadgen.drive.body import chunk_size
from loadgen.record import Chunk

_IDS = (b'"token_ids":[', b'"token_ids": [', b'"tokens":[', b'"tokens": [')
_PROBE = "loadgen-probe"

_strings = msgspec.json.Decoder(list[str]).decode


class Item(NamedTuple):
    """What one event and the framing behind it come to: its escaped text, the length of its payload, how many bytes
    lie between its start and that of the next, and the size of the HTTP chunk that comes next (`SAME`: it is in the
    same chunk, `LAST`: the chunk ends here, and nothing is known of the next)."""

    text: bytes
    length: int
    advance: int
    size: int


SAME = -1
LAST = 0

Known = dict[bytes, Item]
"""Items by the bytes that they were found as. A vocabulary is finite, so most events are found here."""
_KNOWN_LIMIT = 30_000
_VOCABULARIES = 16
"""Servers that write the id of a request behind the text make a new one with each request."""
_NEEDLE = 99
"""Python searches for a longer needle in a way that pays off only in long texts."""


class Taken(NamedTuple):
    """What `Template.take` understood: the first ``pieces`` pieces and ``rest`` bytes of the next; the text of each
    event; how many events end in each of these pieces, and in how many HTTP chunks they lie (None: one in each)."""

    pieces: int
    rest: int
    texts: Sequence[bytes]
    counts: Sequence[int] | None
    chunks: Sequence[int] | None


class Template:
    """The constant bytes of a stream's events: ``before`` text ``between`` ids ``after`` (``between`` None: no ids).

    ``vocabularies`` are shared by all streams of a driver. The id of a request, which differs from stream to stream,
    mostly stands near the start of an event: in ``needle``, at which pieces are split, and not in ``lead`` behind it.
    """

    __slots__ = ("after", "before", "between", "ids_first", "known", "lead", "needle", "separator")

    def __init__(
        self,
        before: bytes,
        between: bytes | None,
        after: bytes,
        ids_first: bool = False,
        vocabularies: dict[object, Known] | None = None,
    ) -> None:
        self.before, self.between, self.after, self.ids_first = before, between, after, ids_first
        self.separator = after + before
        self.needle, self.lead = before[:_NEEDLE], before[_NEEDLE:]
        self.known: Known = {}
        if vocabularies is not None:
            if len(vocabularies) >= _VOCABULARIES:
                vocabularies.clear()
            self.known = vocabularies.setdefault((len(before), self.lead, between, after, ids_first), self.known)

    def begins(self, piece: bytes) -> bool:
        """True if a piece that begins with a chunk may begin with a familiar event: `take` is worth its while."""
        return piece.find(self.needle, 0, len(self.before) + 20) >= 0

    def take(self, pieces: Sequence[bytes]) -> Taken | None:
        """Understands pieces from the first on, as far as they are whole HTTP chunks of whole, familiar events.

        This is the way of nearly every token, so it works on all pieces at once with what Python does in C: they are
        split where events begin, each part is looked up, and the sizes of the chunks are held against what was
        found. None if not even the first chunk is familiar.
        """
        joined = b"".join(pieces)
        first, *parts = joined.split(self.needle)
        if not parts or not first.endswith(b"\r\n"):
            return None
        if len(self.known) > _KNOWN_LIMIT:
            self.known.clear()
        found = list(map(self.known.get, parts))
        items = found if None not in found else self._learned(parts, found)
        if not items:
            return None
        texts, lengths, advances, sizes = zip(*items, strict=True)
        declared = (chunk_size(first[:-2]), *sizes[:-1])
        whole = len(items)
        if declared != lengths or sizes[-1] == SAME:
            whole = _whole_chunks(declared[0], lengths, sizes)
        starts = list(accumulate(advances, initial=len(first)))
        return _placed(pieces, texts[:whole], list(map(add, starts, lengths[:whole])), sizes[:whole])

    def _learned(self, parts: Sequence[bytes], found: list[Item | None]) -> list[Item]:
        """The items of the parts as far as they are familiar; new ones are kept."""
        items = []
        for part, item in zip(parts, found, strict=True):
            item = item or self._learn(part)
            if item is None:
                break
            items.append(item)
        return items

    def _learn(self, part: bytes) -> Item | None:
        slot, after, rest = part.removeprefix(self.lead).partition(self.after)
        if not after or not part.startswith(self.lead):
            return None
        text = self._text(slot)
        if text is None:
            return None
        size = LAST
        if not rest:
            size = SAME
        elif rest != b"\r\n":
            if not (rest.startswith(b"\r\n") and rest.endswith(b"\r\n")):
                return None
            size = chunk_size(rest[2:-2])
            if size <= 0:
                return None
        length = len(self.before) + len(slot) + len(self.after)
        self.known[part] = item = Item(text, length, len(self.needle) + len(part), size)
        return item

    def _text(self, slot: bytes) -> bytes | None:
        """The escaped text in a slot, None if there may be more to it than a text and one token id."""
        text = slot
        if self.between is not None:
            text, middle, ids = slot.partition(self.between)
            if self.ids_first:
                text, ids = ids, text
            if not middle or not ids.isdigit():
                return None
        elif not text:
            return None
        try:
            msgspec.json.decode(b'"' + text + b'"', type=str)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None
        return text

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
            text = self._text(slot)
            if text is None:
                return None
            found.append((text, 1))
        return found


def _whole_chunks(size: int, lengths: Sequence[int], sizes: Sequence[int]) -> int:
    """How many events lie in whole HTTP chunks whose declared sizes are those of their events."""
    whole, filled = 0, 0
    for number, (length, following) in enumerate(zip(lengths, sizes, strict=True), 1):
        filled += length
        if following == SAME:
            continue
        if filled != size:
            break
        whole, filled, size = number, 0, following
    return whole


def _placed(pieces: Sequence[bytes], texts: Sequence[bytes], ends: list[int], sizes: Sequence[int]) -> Taken | None:
    """Lays events, which end at ``ends`` in the joined pieces, over the pieces that bring their last bytes."""
    if not ends:
        return None
    piece_ends = list(accumulate(map(len, pieces)))
    chunk_ends = [end + 2 for end, size in zip(ends, sizes, strict=True) if size != SAME]
    if chunk_ends == piece_ends and len(chunk_ends) == len(ends):
        return Taken(len(pieces), 0, texts, None, None)
    taken = bisect_right(piece_ends, chunk_ends[-1])
    rest = chunk_ends[-1] - (piece_ends[taken - 1] if taken else 0)
    until = [0, *(bisect_right(ends, edge) for edge in piece_ends[: taken + (rest > 0)])]
    chunk_of = list(accumulate((size != SAME for size in sizes), initial=0))
    chunks = [chunk_of[stop - 1] - chunk_of[start] + 1 if stop > start else 0 for start, stop in pairwise(until)]
    return Taken(taken, rest, texts, [stop - start for start, stop in pairwise(until)], chunks)


def spelled(texts: Sequence[bytes]) -> str:
    """The text that JSON-escaped pieces spell together. Raises ValueError if one of them is no inside of a string.

    Halves of a surrogate pair may stand in two pieces; one that stays alone becomes U+FFFD.
    """
    whole = b'["' + b'","'.join(texts) + b'"]'
    try:
        return "".join(_strings(whole))
    except ValueError:
        text = "".join(json.loads(whole.decode()))
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def escaped(text: str) -> bytes:
    """A text as the inside of a JSON string. Half of a surrogate pair stays one."""
    try:
        return msgspec.json.encode(text)[1:-1]
    except UnicodeEncodeError:
        return json.dumps(text).encode()[1:-1]


def make_template(
    event: bytes, decoded: Chunk, data_start: int, backend: Backend, vocabularies: dict[object, Known] | None = None
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
