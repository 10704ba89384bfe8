"""Which part of a trace is replayed, and how fast: rows in, a `Trace` out, with what was left out counted by reason.

In this order: the part from ``from_s`` to ``to_s`` (seconds of the trace after its first row) is taken; failures are
dropped or kept; what is too long is refused, clipped or dropped; the rows are put into the order of time, where they
are not; the ``first`` so many are taken; and time runs ``scale`` times as fast.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable
from typing import Annotated, Literal

import msgspec

from loadgen.errors import UsageError
from loadgen.traces import Row

Positive = Annotated[float, msgspec.Meta(gt=0, le=1e9)]

OUTSIDE = "outside of the cut"
TOO_LONG = "too long"


class Cut(msgspec.Struct, frozen=True, kw_only=True):
    """What of a trace is replayed.

    ``failures`` are rows without a reply (0 output tokens): left out, or asked for one token. ``max_model_len`` is the
    most that prompt and reply may have together; ``too_long`` says what becomes of a row that has more: ``clip`` cuts
    the end of its prompt, and its reply where that alone is too long.
    """

    scale: Annotated[float, msgspec.Meta(ge=1e-3, le=1e6)] = 1.0
    from_s: Annotated[float, msgspec.Meta(ge=0, le=1e9)] = 0.0
    to_s: Positive | None = None
    first: Annotated[int, msgspec.Meta(ge=1)] | None = None
    failures: Literal["drop", "keep"] = "drop"
    max_model_len: Annotated[int, msgspec.Meta(ge=2)] | None = None
    too_long: Literal["refuse", "clip", "drop"] = "refuse"


class Trace:
    """The requests that are replayed, in the order of time, as columns; about 32 bytes a request and 8 a block.

    ``at_ns`` counts from the start of the replay. ``dropped`` counts the rows left out by reason, ``clipped`` those
    cut to length; ``total`` is how many rows were read.
    """

    def __init__(self) -> None:
        self.at_ns = array("q")
        self.in_tok, self.out_tok = array("I"), array("I")
        self._ids, self._first, self._count = array("Q"), array("Q"), array("I")
        self.dropped: Counter[str] = Counter()
        self.clipped = self.total = 0

    def __len__(self) -> int:
        return len(self.at_ns)

    def offsets(self) -> list[float]:
        """When each request is due, in seconds from the start of the replay."""
        return [at / 1e9 for at in self.at_ns]

    def hash_ids(self, row: int) -> array[int]:
        """The ids of the blocks that a prompt begins with."""
        return self._ids[self._first[row] : self._first[row] + self._count[row]]

    def add(self, row: Row) -> None:
        """Takes a row."""
        self.at_ns.append(row.at_ns)
        self.in_tok.append(row.in_tok)
        self.out_tok.append(row.out_tok)
        self._first.append(len(self._ids))
        self._count.append(len(row.hash_ids))
        self._ids.extend(row.hash_ids)

    def order(self, first: int | None) -> None:
        """Puts the rows into the order of time (those of one moment stay as they are) and keeps the first so many."""
        places = sorted(range(len(self)), key=self.at_ns.__getitem__)
        self.dropped[OUTSIDE] += max(0, len(places) - (first or len(places)))
        for name in ("at_ns", "in_tok", "out_tok", "_first", "_count"):
            column = getattr(self, name)
            setattr(self, name, array(column.typecode, (column[place] for place in places[:first])))

    def begin_at(self, start_ns: int, scale: float) -> None:
        """Counts time from ``start_ns`` on (from the first row, if that came earlier), ``scale`` times as fast."""
        start_ns = min(start_ns, self.at_ns[0])
        self.at_ns = array("q", (round((at - start_ns) / scale) for at in self.at_ns))


def cut(rows: Iterable[Row], how: Cut, path: str) -> Trace:
    """The part of a trace that is replayed; ``path`` names the file in messages. Raises UsageError."""
    trace = Trace()
    begin, last = None, -(2**62)
    too_long: list[Row] = []
    in_order = True
    for row in rows:
        if begin is None:
            begin = row.at_ns
        if in_order and len(trace) == how.first:
            break  # nothing earlier will come
        trace.total += 1
        kept, reason = _kept(row, row.at_ns - begin, how)
        trace.clipped += reason == "clip"
        if kept is None:
            trace.dropped[reason] += 1
        elif reason == TOO_LONG:
            too_long.append(row)
        else:
            in_order = in_order and row.at_ns >= last
            last = row.at_ns
            trace.add(kept)
    _check(trace, too_long, how, path)
    if not in_order:
        trace.order(how.first)
    trace.begin_at((begin or 0) + round(how.from_s * 1e9), how.scale)
    return trace


def _kept(row: Row, since_ns: int, how: Cut) -> tuple[Row | None, str]:
    """The row as it is replayed, None if it is left out, and what is to be said of it ("" for nothing)."""
    late = how.to_s is not None and since_ns >= how.to_s * 1e9
    if late or (how.from_s and since_ns < how.from_s * 1e9):
        return None, OUTSIDE
    if row.in_tok == 0:
        return None, "without a prompt"
    if row.out_tok == 0:
        if how.failures == "drop":
            return None, "without a reply"
        row = row._replace(out_tok=1)
    most = how.max_model_len
    if most is None or row.in_tok + row.out_tok <= most:
        return row, ""
    if how.too_long != "clip":
        return (None if how.too_long == "drop" else row), TOO_LONG
    out_tok = min(row.out_tok, most - 1)
    return row._replace(in_tok=min(row.in_tok, most - out_tok), out_tok=out_tok), "clip"


def _check(trace: Trace, too_long: list[Row], how: Cut, path: str) -> None:
    """Raises UsageError for a trace of nothing, or with requests that are too long."""
    if too_long:
        row, more = too_long[0], len(too_long) - 1
        others = f"; so are those of {more} other requests" if more else ""
        raise UsageError(
            f"{path}:{row.line}: {row.in_tok} tokens of prompt and {row.out_tok} of reply are more than "
            f"workload.max_model_len {how.max_model_len}{others}. Set workload.too_long: clip (cut prompts) or drop "
            "(leave them out; they are counted), or raise max_model_len."
        )
    if len(trace):
        return
    if not trace.total:
        raise UsageError(f"{path} holds no request (or none that workload.where lets through).")
    listed = ", ".join(f"{count} {reason}" for reason, count in trace.dropped.items())
    raise UsageError(f"{path}: of {trace.total} requests none is left ({listed}); widen the cut.")
