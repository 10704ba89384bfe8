"""How much of its prompts a server could have had in its prefix cache: what a workload implies, if nothing were ever
forgotten, beside what the server says.

In: the job of a repeat, whose workload says which prompts begin alike (`workloads.outline`), and the repeat's records,
which say when each was sent and when its first token came. Out: an `Implied`, two bounds:

* ``high``: a prompt finds whatever an earlier one began with, as if each were read at once;
* ``low``: it finds only what had been read, to the first token, when it was sent.

What was read meanwhile lies between the two: with gaps longer than a prefill they are one, in a burst they are far
apart. Hits count as servers count them, in whole blocks of their cache where that block is known.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable

import msgspec

from loadgen.drive.job import Job
from loadgen.record import Record
from loadgen.summary import Doubt
from loadgen.workloads import Context, Source
from loadgen.workloads.outline import Outline, Outlining, Prefixes, hit
from loadgen.workloads.replies import open_source
from loadgen.workloads.trace import TraceSource

TOLERANCE = 0.03
"""How far outside of the bounds a server's share of hits may lie before it is told."""


_SHARING = ("mix", "synthetic", "trace")
"""Workloads that can tell what their prompts share."""

_SHARED = frozenset({"prefix", "shared_prefix_tokens"})
"""The settings by which those of `synthetic` do."""


class Implied(msgspec.Struct, frozen=True, kw_only=True):
    """The share of the prompt tokens of ok measured requests that a prefix cache could give: between ``low`` and
    ``high``, in whole blocks of ``cache_block`` tokens (1 where nobody said it)."""

    low: float
    high: float
    cache_block: int = 1


def sharing(job: Job) -> Source | None:
    """The workload of a repeat where it can tell what its prompts share; None where they share nothing, or nobody knows
    what."""
    if job.workload not in _SHARING or (job.workload == "synthetic" and not _SHARED & job.settings.keys()):
        return None
    source = open_source(job.workload, job.settings, msgspec.convert(job.context, Context))
    return source if isinstance(source, Outlining) else None


def implied(source: Source, records: Iterable[Record], cache_block: int | None) -> Implied | None:
    """What a workload implies that was asked so; None where its prompts share nothing.

    Later turns of a conversation begin with what was said before them: how long that is only the server knows.
    """
    asked = _Asked()
    for record in records:
        if record.turn:
            return None
        asked.add(record)
    return asked.bounds(source, cache_block or 1)


class _Asked:
    """The requests that were sent, in columns: when, which session, and when its prompt had been read."""

    def __init__(self) -> None:
        self._send, self._first, self._session = array("d"), array("d"), array("q")
        self._counts = bytearray()

    def add(self, record: Record) -> None:
        if record.t_send is None:
            return
        read = record.t_first if record.t_first is not None else record.t_end
        self._send.append(record.t_send)
        self._first.append(float("inf") if read is None or record.status != "ok" else read)
        self._session.append(record.session)
        self._counts.append(record.status == "ok" and record.phase == "measure")

    def bounds(self, source: Source, cache_block: int) -> Implied | None:
        count = len(self._send)
        at_once, when_read = Prefixes(), Prefixes()
        total = high = low = 0
        waiting = iter(sorted(range(count), key=self._first.__getitem__))
        reading = next(waiting, None)
        for i in sorted(range(count), key=self._send.__getitem__):
            while reading is not None and self._first[reading] <= self._send[i]:
                when_read.take(self._outline(source, reading).blocks)
                reading = next(waiting, None)
            outline = self._outline(source, i)
            upper, lower = at_once.take(outline.blocks), when_read.shared(outline.blocks)
            if self._counts[i] and outline.in_tok is not None:
                total += outline.in_tok
                high += hit(upper, outline.in_tok, cache_block)
                low += hit(lower, outline.in_tok, cache_block)
        return Implied(low=low / total, high=high / total, cache_block=cache_block) if total and high else None

    def _outline(self, source: Source, i: int) -> Outline:
        assert isinstance(source, Outlining)
        return source.outline(self._session[i])


def doubts(source: Source, found: Implied | None, cached_share: float | None) -> list[Doubt]:
    """What is to be said of a trace that was not sent whole, and of a share of hits that is not what was implied."""
    return [*(source.doubts() if isinstance(source, TraceSource) else ()), *_misses(found, cached_share)]


def _misses(found: Implied | None, cached_share: float | None) -> list[Doubt]:
    if found is None or cached_share is None or found.low - TOLERANCE <= cached_share <= found.high + TOLERANCE:
        return []
    fewer = cached_share < found.low
    reason = (
        "its cache is off, too small to hold them, or forgets them"
        if fewer
        else "it had these prompts before, or shares more than whole blocks of them"
    )
    text = (
        f"The workload implies that {_range(found)} of the prompt tokens come from a prefix cache, and the server says "
        f"{cached_share * 100:.3g} %: {reason}."
    )
    return [Doubt("prefix_hits", text)]


def _range(found: Implied) -> str:
    low, high = (f"{share * 100:.3g}" for share in (found.low, found.high))
    return f"{high} %" if low == high else f"{low} to {high} %"
