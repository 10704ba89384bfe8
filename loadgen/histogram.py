"""The one wrapper of HdrHistogram: latency distributions over time, in a log that other tools read.

In: microseconds. Out: histograms that add up (a worker's to a run's, a second's to a minute's) and ``latency.hlog``,
the interval log of the HdrHistogram tools. They are for looking and for passing on: a value is kept to three digits, so
percentiles that a summary states come from raw records (``summarise.py``) and never from here.

A value out of range raises. (``record_value`` of the library answers False instead, and the value is gone.) The log is
written here, line by line, because the library's writer cannot write a start time or a tag.
"""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from loadgen.errors import StoreError
from loadgen.record import Record
from loadgen.statistics import tally

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

HIGHEST_US = 24 * 3_600_000_000
"""The largest value that a histogram takes: a day."""

_DIGITS = 3
_SLOT_BITS = 11  # 2^11 = 2048 >= 2 * 10^3 slots keep three digits
_BLOCK = 2048


class Histogram:
    """Counts of values in whole microseconds, from 0 to `HIGHEST_US`, to three significant digits."""

    def __init__(self, values_us: Iterable[int] = ()) -> None:
        from hdrh.histogram import HdrHistogram

        self._hdr: Any = HdrHistogram(1, HIGHEST_US, _DIGITS)
        self.add(values_us)

    @classmethod
    def decode(cls, text: str) -> Histogram:
        """The histogram of a base64 text (compressed V2 encoding, ``HIST...``)."""
        histogram = cls()
        histogram._hdr.decode_and_add(text.encode())
        return histogram

    def encode(self) -> str:
        """Base64 of the compressed V2 encoding, which the HdrHistogram tools of every language read."""
        return str(self._hdr.encode().decode())

    def add(self, values_us: Iterable[int]) -> None:
        """Count values. Raises ValueError, and counts none, if one of them is below 0 or above `HIGHEST_US`."""
        from loadgen.arrays import np

        values = np.fromiter(values_us, np.int64)
        if len(values):
            self.add_counts(Counter(dict(zip(*_counted(_slots(values)), strict=True))))

    def add_counts(self, counts: Counter[int]) -> None:
        """Count each value as often as it is mapped to. Raises as `add` does."""
        for value in counts:
            if not 0 <= value <= HIGHEST_US:
                raise ValueError(f"a histogram takes 0 to {HIGHEST_US} us, not {value} us")
        for value, count in counts.items():
            self._hdr.record_value(value, count)

    def merge(self, other: Histogram) -> None:
        """Add all counts of another histogram."""
        self._hdr.add(other._hdr)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Histogram) and self.counts() == other.counts()

    __hash__ = None  # type: ignore[assignment]

    @property
    def n(self) -> int:
        """How many values were counted."""
        return int(self._hdr.get_total_count())

    def counts(self) -> dict[int, int]:
        """How many values each slot holds, by the highest value that falls into it; empty slots left out."""
        from loadgen.arrays import np

        hdr, counts = self._hdr, np.ctypeslib.as_array(self._hdr.counts)
        filled = np.flatnonzero(counts).tolist()  # the library's own iterator visits every slot, full or empty
        return {hdr.get_highest_equivalent_value(hdr.get_value_from_index(i)): int(counts[i]) for i in filled}

    def max_us(self) -> int:
        """The largest value, to three digits; 0 when empty."""
        return int(self._hdr.get_max_value()) if self.n else 0

    def percentile_us(self, percent: float) -> int | None:
        """The value at a percentile (0 to 100), to three digits; None when empty. For display only."""
        return int(self._hdr.get_value_at_percentile(percent)) if self.n else None


class Interval:
    """A line of the log: the values of ``tag`` from ``start_s`` (since the log's base time) over ``length_s``."""

    def __init__(self, tag: str, start_s: float, length_s: float, histogram: Histogram) -> None:
        if not tag or any(char in ", \r\n" for char in tag):
            raise ValueError(f"a tag of an interval log may not be empty or hold a comma, space or line end: {tag!r}")
        self.tag, self.start_s, self.length_s, self.histogram = tag, start_s, length_s, histogram

    def line(self) -> str:
        """The line with its end. The payload is in microseconds; Interval_Max, for readers' eyes, in milliseconds."""
        worst = self.histogram.max_us() / 1000
        return f"Tag={self.tag},{self.start_s:.3f},{self.length_s:.3f},{worst:.3f},{self.histogram.encode()}\n"


MOST_STEPS = 600
"""Steps of a log: a repeat of 10 min has a line a second, a longer one fewer."""


def step_s(length_s: float) -> float:
    """The length of a step in the log of a repeat that lasts so long: whole seconds, at least one."""
    return float(max(1, math.ceil(length_s / MOST_STEPS)))


def intervals(records: Iterable[Record], length_s: float = 1.0) -> Iterator[Interval]:
    """What ok measured requests took, in steps of ``length_s``: ttft, e2e and chunk_gap, each by when it was over.

    Memory grows with the number of different values per step, not with the number of requests; an `Interval` takes
    200 KB and is made when it is asked for.
    """
    timeline = _Timeline(length_s)
    for record in records:
        if record.status == "ok" and record.phase == "measure" and record.t_send is not None:
            timeline.add(record, record.t_send)
    timeline.flush()
    for step, tag in sorted(timeline.counts):
        histogram = Histogram()
        histogram.add_counts(timeline.counts[step, tag])
        yield Interval(tag, step * length_s, length_s, histogram)


def write_log(file: TextIO, lines: Iterable[Interval], started_at: float, comment: str = "") -> None:
    """Write an interval log, version 1.3. ``started_at`` is the moment of second 0 of the repeat, since the epoch."""
    moment = datetime.fromtimestamp(started_at, UTC).isoformat(sep=" ", timespec="milliseconds")
    file.write("#[Histogram log format version 1.3]\n")
    file.write(f"#[StartTime: {started_at:.3f} (seconds since epoch), {moment}]\n")
    file.write(f"#[BaseTime: {started_at:.3f} (seconds since epoch)]\n")
    for line in comment.splitlines():
        file.write(f"#{line}\n")
    file.write('"StartTimestamp","Interval_Length","Interval_Max","Interval_Compressed_Histogram"\n')
    for interval in lines:
        file.write(interval.line())


def read_log(path: Path) -> Iterator[Interval]:
    """The intervals of a log; lines without a tag get the tag ``all``.

    A last line without its end (the writer was killed) is passed over. Raises StoreError for a line that is none.
    """
    with path.open(encoding="utf-8", newline="\n") as file:
        for number, line in enumerate(file, 1):
            if line.startswith(("#", '"')) or not line.endswith("\n") or not line.strip():
                continue
            tag, rest = line[4:].split(",", 1) if line.startswith("Tag=") else ("all", line)
            try:
                start, length, _, payload = rest.strip().split(",")
                yield Interval(tag, float(start), float(length), Histogram.decode(payload))
            except Exception as error:  # the decoder raises of many kinds: zlib's, base64's, its own
                raise StoreError(f"{path}:{number}: this is no line of an interval log: {error}") from error


class _Timeline:
    """Counts by (step, tag) and slot. Records wait until they fill a block, which is counted as arrays."""

    def __init__(self, length_s: float) -> None:
        self.counts: dict[tuple[int, str], Counter[int]] = {}
        self._length_s = length_s
        self._single = {"ttft": (array("d"), array("d")), "e2e": (array("d"), array("d"))}
        self._sends: list[float] = []
        self._chunks: list[list[int]] = []

    def add(self, record: Record, t_send: float) -> None:
        for tag, took in (("ttft", record.ttft_s), ("e2e", record.e2e_s)):
            if took is not None:
                self._single[tag][0].append(t_send + took)
                self._single[tag][1].append(took)
        if len(record.chunk_us) > 1:
            self._sends.append(t_send)
            self._chunks.append(record.chunk_us)
        if len(self._single["e2e"][0]) >= _BLOCK:
            self.flush()

    def flush(self) -> None:
        """Count what waits. Must be called once more after the last record."""
        from loadgen.arrays import np

        for tag, (ends, took) in self._single.items():
            values = np.round(np.frombuffer(took) * 1e6).astype(np.int64)
            self._count(tag, np.frombuffer(ends), values)
            self._single[tag] = (array("d"), array("d"))
        if self._chunks:
            lengths = np.fromiter(map(len, self._chunks), np.int64, len(self._chunks))
            stamps = np.fromiter(chain.from_iterable(self._chunks), np.int64, int(lengths.sum()))
            ends_s = stamps * 1e-6 + np.repeat(np.array(self._sends), lengths)
            follows = np.ones(len(stamps), dtype=bool)
            follows[np.cumsum(lengths) - lengths] = False  # the first chunk of a reply has no gap before it
            gaps = np.maximum(np.diff(stamps, prepend=0), 0)
            self._count("chunk_gap", ends_s[follows], gaps[follows])
            self._sends.clear()
            self._chunks.clear()

    def _count(self, tag: str, ends_s: NDArray[np.float64], values_us: NDArray[np.int64]) -> None:
        from loadgen.arrays import np

        steps, slots = np.floor(ends_s / self._length_s).astype(np.int64), _slots(values_us)
        for step in tally(steps)[0]:
            counted = _counted(slots[steps == step])
            self.counts.setdefault((int(step), tag), Counter()).update(dict(zip(*counted, strict=True)))


def _slots(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """The lowest value of the slot that each value falls into: its leading 11 bits. Negative values stay as they are.

    A slot is what the library resolves, and there are few of them, so that it is called once per slot, not per value.
    """
    from loadgen.arrays import np

    _, bits = np.frexp(np.maximum(values, 0).astype(np.float64))
    shift = np.maximum(bits.astype(np.int64) - _SLOT_BITS, 0)
    # What is too large must not be rounded down into the range.
    return np.where(values > HIGHEST_US, values, (values >> shift) << shift)


def _counted(values: NDArray[np.int64]) -> tuple[list[int], list[int]]:
    distinct, counts = tally(values)
    return distinct.tolist(), counts.tolist()
