"""A repeat in parts: what the requests of each workload of a mix (or of each of anything that a record names) came to.

In: the records of a repeat, the window, and which part a record belongs to. Out: a `Part` for each, by name. The
definitions are those of the whole repeat; the rates of the parts add up to its rates. Latencies do not: a percentile of
a mix is that of no part, which is why they are here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from loadgen.metrics import Measure
from loadgen.record import Record
from loadgen.summarise import summary_of
from loadgen.summary import Context, Distribution, Summary, Window


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
    return {key: _part(summary_of(found[key])) for key in sorted(found)}


def _part(summary: Summary) -> Part:
    return Part(**{field: getattr(summary, field) for field in Part.__struct_fields__})
