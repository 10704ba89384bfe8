"""A repeat in parts: what the requests of each workload of a mix (or of each of anything that a record names) came to.

In: the records of a repeat, the window, and which part a record belongs to. Out: a `Part` for each, by name. The
definitions are those of the whole repeat; the rates of the parts add up to its rates. Latencies do not: a percentile of
a mix is that of no part, which is why they are here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

import msgspec

from loadgen.metrics import Measure
from loadgen.record import Record
from loadgen.summarise import summary_of
from loadgen.summary import Context, Distribution, Summary, Window

MOST_TURNS = 10
"""Turns that are parts of their own; longer conversations have their later turns in one part."""

LAST = 3
"""So many requests in a row that found no server are no accident."""


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One part of a repeat; its fields are those of `Summary` of the same names."""

    requests: int
    ok: int
    failed: int
    request_rps: float | None
    output_tok_s: float | None
    ttft_s: Distribution
    tpot_s: Distribution
    e2e_s: Distribution
    in_tok: Distribution
    out_tok: Distribution
    cached_share: float | None

    def get(self, what: Measure) -> float | None:
        """The value of a measure, None where this part has none. Raises AttributeError for what parts do not hold."""
        held = getattr(self, what.metric)
        return held.get(what.statistic or "p50") if isinstance(held, Distribution) else held


def parts(
    records: Iterable[Record], window: Window, context: Context, name: Callable[[Record], str]
) -> dict[str, Part]:
    """The parts of a repeat by their names, in the order of these; empty where all records have one and the same.

    ``context`` is that of the whole repeat.
    """
    from loadgen.collect import Collector

    found: dict[str, Collector] = {}
    for record in records:
        key = name(record)
        if key not in found:
            found[key] = Collector(window, context)
        found[key].add(record)
    if len(found) < 2:
        return {}
    return {key: _part(summary_of(found[key])) for key in sorted(found, key=_natural)}


def parts_by(
    kinds: Iterable[str], records: Callable[[], Iterable[Record]], window: Window, context: Context
) -> dict[str, dict[str, Part]]:
    """The parts of each of these kinds that has more than one; ``records`` gives those of the repeat each time anew."""
    found = {kind: parts(records(), window, context, KINDS[kind]) for kind in kinds}
    return {kind: named for kind, named in found.items() if named}


def turn_of(record: Record) -> str:
    """Which turn of its conversation a request is, from 1; those from the `MOST_TURNS`-th on are one part."""
    turn = record.turn + 1
    return str(turn) if turn < MOST_TURNS else f"{MOST_TURNS} and later"


KINDS: Mapping[str, Callable[[Record], str]] = MappingProxyType(
    {"turn": turn_of, "endpoint": lambda record: record.endpoint, "source": lambda record: record.source}
)
"""What a repeat may be divided by, and the name of the part that a record belongs to."""


def gone(records: Iterable[Record]) -> list[str]:
    """The endpoints whose last requests (`LAST` of them, or all), by when they were due, found no server."""
    last: dict[str, list[tuple[float, bool]]] = {}
    for record in records:
        mine = last.setdefault(record.endpoint, [])
        if record.status not in ("dropped", "unsent", "cancelled"):
            mine.append((record.t_sched, record.status in ("connect_error", "reset")))
            mine.sort()
            del mine[:-LAST]
    return sorted(endpoint for endpoint, ends in last.items() if ends and all(failed for _, failed in ends))


def _natural(name: str) -> str:
    """Sorts names with numbers in them by the numbers."""
    return re.sub(r"\d+", lambda digits: digits[0].zfill(9), name)


def _part(summary: Summary) -> Part:
    return Part(**{field: getattr(summary, field) for field in Part.__struct_fields__})
