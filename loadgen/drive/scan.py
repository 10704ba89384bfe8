"""The fast way through a stream of nearly equal events: compare with a template instead of decoding JSON.

The events of one stream differ in the generated text, perhaps in the token ids, and in nothing else. Once one event
has been decoded the slow way, a `Template` of it is made (`template.py`): the bytes before, between and after these
slots. An event that fits is understood by comparing bytes; every other goes the slow way, so the template may be wrong
about speed but never about meaning.

Where the C of `fast.py` is there, it holds event by event against the template. Python is fast only where it works on
many events at once, and has two ways, since servers cut a stream in two ways. An event in an HTTP chunk of its own
(nearly all servers) is found with its framing in a vocabulary, many chunks at once. Several events in a chunk (a proxy
that collects, a server that falls behind) are cut at their line ends, and what was cut is put together again and held
against the bytes: `Template.slots`.

In: pieces and payloads (whole events) as bytes. Out: the JSON-escaped text of each event.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import accumulate
from operator import add
from typing import NamedTuple

import msgspec

from loadgen.drive import fast
from loadgen.drive.body import chunk_size
from loadgen.drive.laid import Taken, laid_over, placed


class Item(NamedTuple):
    """What one event and the framing behind it come to: its escaped text, the length of its payload, how many bytes
    lie between its start and that of the next, and the size of the HTTP chunk that comes next (0: nothing is known of
    the next)."""

    text: bytes
    length: int
    advance: int
    size: int


Known = dict[bytes, Item]
"""Items by the bytes that they were found as. A vocabulary is finite, so most events are found here."""
Slots = dict[bytes, bytes]
"""Escaped texts by the slots (text, perhaps ids) that they were found in."""
Vocabularies = dict[object, tuple[Known, Slots]]
"""What templates have learned, by their constant bytes without the id of a request."""
_KNOWN_LIMIT = 30_000
_VOCABULARIES = 16
"""Servers that write the id of a request behind the text make a new one with each request."""
_REACH = 128
"""Pieces that are taken together at most."""
_NEEDLE = 99
"""Python searches for a longer needle in a way that pays off only in long texts."""


class Template:
    """The constant bytes of a stream's events: ``before`` text ``between`` ids ``after`` (``between`` None: no ids).

    ``vocabularies`` are shared by all streams of a driver. The id of a request, which differs from stream to stream,
    mostly stands near the start of an event: in ``needle``, at which pieces are split, and not in ``lead`` behind it.
    """

    __slots__ = (
        "_cut",
        "_grouped",
        "_known",
        "_reach",
        "_rows",
        "_slots",
        "after",
        "before",
        "between",
        "ids_first",
        "lead",
        "needle",
        "separator",
    )

    def __init__(
        self,
        before: bytes,
        between: bytes | None,
        after: bytes,
        ids_first: bool = False,
        vocabularies: Vocabularies | None = None,
    ) -> None:
        self.before, self.between, self.after, self.ids_first = before, between, after, ids_first
        self.separator = after + before
        self.needle, self.lead = before[:_NEEDLE], before[_NEEDLE:]
        self._known: Known = {}
        self._slots: Slots = {}
        if vocabularies is not None:
            if len(vocabularies) >= _VOCABULARIES:
                vocabularies.clear()
            key = (len(before), self.lead, between, after, ids_first)
            self._known, self._slots = vocabularies.setdefault(key, (self._known, self._slots))
        self._cut = slice(len(before) - before.rfind(b"\n") - 1, -after.find(b"\n"))
        self._rows = slice(before.count(b"\n"), -1, max(self.separator.count(b"\n"), 1))
        self._grouped = False
        self._reach = _REACH

    def take(self, pieces: Sequence[bytes]) -> Taken | None:
        """Understands pieces, of which the first begins with an HTTP chunk, as far as they are whole chunks of whole,
        familiar events. None if not even the first chunk is such a one."""
        if pieces[0].find(self.needle, 0, len(self.before) + 20) < 0:
            return None
        taken = self._way(pieces)(pieces[: self._reach])
        used = 0 if taken is None else taken.pieces
        # a stream with a strange event here and there must not be put together as a whole again after each of them
        all_but_a_rest = used + 1 >= min(self._reach, len(pieces))
        self._reach = min(2 * self._reach, _REACH) if all_but_a_rest else max(used, 2)
        return taken

    def _way(self, pieces: Sequence[bytes]) -> Callable[[Sequence[bytes]], Taken | None]:
        """How these pieces are taken: in C, or by whether their first event has a chunk of its own."""
        if fast.native is not None:
            return self._natively
        first = pieces[0]
        end = first.find(self.after, len(self.before))
        if end < 0 and len(pieces) > 1:  # the piece holds only the start of an event
            first += pieces[1]
            end = first.find(self.after, len(self.before))
        alone = end >= 0 and first.startswith(b"\r\n", end + len(self.after))
        return self._singles if alone and not self._grouped else self._groups

    def _natively(self, pieces: Sequence[bytes]) -> Taken | None:
        """Takes chunks with any number of events in each."""
        found = fast.native.take(pieces, b"".join(pieces), self.before, self.after, self._slots, self._new)
        return Taken._make(found) if found[2] else None

    def _singles(self, pieces: Sequence[bytes]) -> Taken | None:
        """Takes chunks with one event in each.

        This is the way of nearly every token, so it works on all pieces at once with what Python does in C: they are
        split where events begin, each part is looked up, and the sizes of the chunks are held against what was found.
        """
        joined = b"".join(pieces)
        first, *parts = joined.split(self.needle)
        if not parts or not first.endswith(b"\r\n"):
            return None
        if len(self._known) > _KNOWN_LIMIT:
            self._known.clear()
        found = list(map(self._known.get, parts))
        items = found if None not in found else self._learned(parts, found)
        if not items:
            return None
        texts, lengths, advances, sizes = zip(*items, strict=True)
        declared = (chunk_size(first[:-2]), *sizes[:-1])
        whole = len(items)
        if declared != lengths:
            self._grouped = True  # this server puts several events into a chunk
            whole = next(number for number, size in enumerate(declared) if size != lengths[number])
        starts = list(accumulate(advances, initial=len(first)))
        return placed(pieces, texts[:whole], list(map(add, starts, lengths[:whole])))

    def _groups(self, pieces: Sequence[bytes]) -> Taken | None:
        """Takes chunks with any number of events in each, one by one: all at once would be no faster, since several
        copies of all bytes do not stay in the processor's cache."""
        joined = b"".join(pieces)
        texts: list[bytes] = []
        groups: list[tuple[int, int, int]] = []
        at = 0
        while (line := joined.find(b"\r\n", at, at + 18)) > 0:
            start, stop = line + 2, line + 2 + _declared(joined[at:line])
            found = self.slots(joined[start:stop]) if joined.startswith(b"\r\n", stop) else None
            if found is None:
                break
            texts += found
            groups.append((len(found), start, stop))
            at = stop + 2
        self._grouped = self._grouped or len(texts) > len(groups)
        return laid_over(pieces, texts, joined, groups) if groups else None

    def slots(self, payload: bytes) -> list[bytes] | None:
        """The escaped text of each event in a payload of whole events; None if any of them does not fit.

        An event counts as one token where it has no ids; empty text without ids does not fit, since whether such an
        event carries a token is for the backend to say.
        """
        if not payload.startswith(self.before):  # as it is at the end of every stream
            return None
        cut = self._cut
        slots = [row[cut] for row in payload.split(b"\n")[self._rows]]
        if b"".join((self.before, self.separator.join(slots), self.after)) != payload:
            return None
        texts = list(map(self._slots.get, slots))
        if None in texts:
            for number, slot in enumerate(slots):
                text = texts[number] = self._new(slot)
                if text is None:
                    return None
        return texts  # type: ignore[return-value]  # no None is left

    def _new(self, slot: bytes) -> bytes | None:
        """The text in a slot, which is kept; None if it is not familiar."""
        text = self._text(slot)
        if text is not None:
            if len(self._slots) > _KNOWN_LIMIT:
                self._slots.clear()
            self._slots[slot] = text
        return text

    def _learned(self, parts: Sequence[bytes], found: list[Item | None]) -> Sequence[Item]:
        """The items of the parts as far as they are familiar; new ones are kept."""
        for number, item in enumerate(found):
            if item is None:  # learned meanwhile, if it is a copy of an earlier part
                found[number] = item = self._known.get(parts[number]) or self._learn(parts[number])
                if item is None:
                    return found[:number]  # type: ignore[return-value]  # none before this one is None
        return found  # type: ignore[return-value]  # no None is left

    def _learn(self, part: bytes) -> Item | None:
        slot, after, rest = part.removeprefix(self.lead).partition(self.after)
        if not after or not part.startswith(self.lead):
            return None
        text = self._text(slot)
        if text is None:
            return None
        size = 0
        if rest != b"\r\n":
            if not (len(rest) > 4 and rest.startswith(b"\r\n") and rest.endswith(b"\r\n")):
                return None
            size = chunk_size(rest[2:-2])
            if size <= 0:
                return None
        length = len(self.before) + len(slot) + len(self.after)
        self._known[part] = item = Item(text, length, len(self.needle) + len(part), size)
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


_declared = lru_cache(maxsize=4096)(chunk_size)
