"""What a scenario would send, as small plots for a terminal. In: `Preview`s. Out: text of a given width.

A row of bars is a histogram: its height is the count, or the rate, of each of its steps; the numbers beside it say what
the bars cannot.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from loadgen.preview import BINS, Preview, Shared, Spread
from loadgen.progress import counted, duration
from loadgen.reports.rows import plain
from loadgen.reports.text import wrapped
from loadgen.shown import number

_BARS = " ▁▂▃▄▅▆▇█"
_ASCII = " .:-=+*#%"
_MARGIN = 10


def render(previews: Sequence[Preview], width: int = 100, unicode: bool = True) -> str:
    """A paragraph for each cell."""
    parts: list[str] = []
    for one in previews:
        parts += [plain(one.cell), *_indented(list(_lines(one, width, unicode)), width), ""]
    return "\n".join(parts)


def bars(heights: Sequence[float], columns: int, unicode: bool = True) -> str:
    """Heights as characters, the highest full; what is not 0 is seen. Steps are put together where columns are few."""
    columns = min(columns, len(heights))
    edges = [round(i * len(heights) / columns) for i in range(columns + 1)]
    merged = [max(heights[a:b]) for a, b in pairwise(edges)]
    levels, top = (_BARS if unicode else _ASCII), max(merged, default=0.0) or 1.0
    return "".join(levels[-(-int(height / top * 1000) * (len(levels) - 1) // 1000)] for height in merged).rstrip()


def _lines(one: Preview, width: int, unicode: bool) -> Iterator[tuple[str, str]]:
    """The rows of a cell: what it is, and what is to be said."""
    columns = max(16, min(BINS, width - _MARGIN - 2))
    yield "requests", _requests(one)
    if one.rates_rps:
        yield "rate", bars(one.rates_rps, columns, unicode)
        yield "", f"0 to {duration(one.length_s or 0.0)}; at most {number(max(one.rates_rps))}/s"
    if one.turns is not None:
        yield from _turns(one.turns, one.think_s, columns, unicode)
    if one.input is None:
        yield "input", "as many tokens as the server counts: no tokenizer is at hand here"
    else:
        yield from _spread("input", one.input, columns, unicode)
        if one.bare:
            yield "", "counted by the tokenizer, without the chat template"
    yield from _spread("output" if one.exact else "output <=", one.output, columns, unicode)
    if one.shared is not None:
        yield "prefixes", _shared(one.shared)
    if len(one.sources) > 1:
        yield "sources", ", ".join(f"{name} {count / one.seen * 100:.3g} %" for name, count in one.sources.items())
    if left := _left_out(one):
        yield "left out", left


def _requests(one: Preview) -> str:
    if one.rates_rps is None and one.length_s is None:
        many = "as many as the server answers" if one.requests is None else counted(one.requests, "request")
        return f"{many}; {one.seen} were looked at"
    what = f"more than {one.seen:,}" if one.requests is None else f"{one.requests:,}"
    if not one.length_s:
        return f"{what}, all at once"
    said = f"{what} in {duration(one.length_s)}, {number(one.seen / one.length_s)}/s on average"
    return said + (f"; {one.warmup} of them in the warm-up" if one.warmup else "")


def _turns(one: Spread, think_s: float | None, columns: int, unicode: bool) -> Iterator[tuple[str, str]]:
    """Conversations; what stands above and below is of their first turns."""
    said = f"{one.min:,} each"
    if one.min < one.max:
        yield "turns", bars(one.bins, columns, unicode)
        said = f"{one.min:,} to {one.max:,}; mean {one.mean:,.1f}"
    thought = "" if think_s is None else f"; {number(think_s)} s on average from a reply to the next"
    yield "turns" if one.min == one.max else "", f"{said}{thought}; all else is of first turns"


def _spread(name: str, one: Spread, columns: int, unicode: bool) -> Iterator[tuple[str, str]]:
    if one.min == one.max:
        yield name, f"{one.min:,} tokens each"
        return
    yield name, bars(one.bins, columns, unicode)
    yield (
        "",
        f"{one.min:,} to {one.max:,} tokens; mean {one.mean:,.1f}, p50 {one.p50:,.0f}, p90 {one.p90:,.0f}, "
        f"p99 {one.p99:,.0f}",
    )


def _shared(one: Shared) -> str:
    return (
        f"{one.tokens * 100:.3g} % of the prompt tokens begin like an earlier prompt; a cache that keeps all of them "
        f"gives {one.blocks * 100:.3g} % in blocks of {one.cache_block}, and holds {one.distinct_tok:,} prompt tokens "
        "at the end"
    )


def _left_out(one: Preview) -> str:
    """What of a file is not sent."""
    dropped = {str(reason): int(count) for reason, count in dict(one.about.get("dropped") or {}).items() if count}
    said = [f"{count} {reason}" for reason, count in dropped.items()]
    if one.about.get("clipped"):
        said.append(f"{one.about['clipped']} cut to length")
    return ", ".join(said)


def _indented(rows: Sequence[tuple[str, str]], width: int) -> Iterator[str]:
    for name, text in rows:
        head = f"  {name:<{_MARGIN}}"
        first, *rest = [text] if name and not text.isascii() else wrapped(text, max(40, width - len(head))) or [""]
        yield f"{head}{first}".rstrip()
        yield from (" " * len(head) + line.strip() for line in rest)
