"""A repeat in stretches of equal length: what ended in each, how fast, and what client and server did meanwhile.

In: request lines in about the order in which they ended, and seconds of workers. Out: `Interval`s, the lines of
``intervals.jsonl``. Memory grows by a few numbers an interval; values of requests are kept until their interval is
closed, so that an hour takes no more of them than a minute.

**Definitions** are those of ``metrics.py``, each over one interval: requests count where they ended, output tokens
where they arrived (of ok requests; of one that lasts over an edge by the chunks on either side). Percentiles are
nearest rank of raw values, blank below their sample floor.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import msgspec

from loadgen.drive.tally import Tick
from loadgen.errors import StoreError
from loadgen.metrics import PERCENTILES
from loadgen.record import Record
from loadgen.scenario.model import Load
from loadgen.statistics import floor_of, nearest_rank

VERSION = 1
FILE = "intervals.jsonl"
"""The name of the file, in an attempt's folder."""


LONG_S = 600.0
"""Windows of this length and more are kept in intervals unless the scenario says otherwise."""

_SHORTEST_S, _LONGEST_S, _PARTS = 10.0, 60.0, 60


def length_of(load: Load) -> float | None:
    """The length of an interval: ``load.interval_s``, else a minute (a sixtieth of a window under an hour); None for a
    window under 10 min, which has no course worth the name."""
    if load.interval_s is not None or load.window_s is None or load.window_s < LONG_S:
        return load.interval_s
    return min(max(load.window_s / _PARTS, _SHORTEST_S), _LONGEST_S)


class Interval(msgspec.Struct, frozen=True, kw_only=True):
    """One stretch, from ``start_s`` (s from the start of the repeat) over ``length_s``. Of all phases: what a user of
    the server saw.

    ``ended`` counts requests by status. ``in_flight`` is the mean over the seconds, ``late_max_s`` the latest send,
    ``client_cores`` what all workers used. ``server`` holds the words of `telemetry.sampler.words_of` and the engine's
    own (``running``, ``waiting`` ...), each as its mean. What has no value, or too few for its percentile, is None.
    """

    v: int = VERSION
    start_s: float
    length_s: float
    ended: dict[str, int] = msgspec.field(default_factory=dict)
    request_rps: float = 0.0
    output_tok_s: float | None = None
    ttft_p50_s: float | None = None
    ttft_p99_s: float | None = None
    tpot_p50_s: float | None = None
    tpot_p99_s: float | None = None
    e2e_p50_s: float | None = None
    in_flight: float | None = None
    late_max_s: float | None = None
    client_cores: float | None = None
    server: dict[str, float] = msgspec.field(default_factory=dict)

    @property
    def end_s(self) -> float:
        return self.start_s + self.length_s

    @property
    def failed(self) -> int:
        """How many requests ended otherwise than well."""
        return sum(self.ended.values()) - self.ended.get("ok", 0)


class Ended(msgspec.Struct):
    """What is read of a request line."""

    status: str
    t_send: float | None = None
    t_last: float | None = None
    t_end: float | None = None
    ttft_s: float | None = None
    tpot_s: float | None = None
    e2e_s: float | None = None
    out_tok: int | None = None
    chunk_us: list[int] = []
    chunk_tok: list[int] | None = None


class _Bin:
    """One interval as it fills. The values go when it is closed; what is left is a few numbers."""

    __slots__ = ("cores", "e2e", "ended", "flight", "late_us", "percentiles", "server", "tokens", "tpot", "ttft")

    def __init__(self) -> None:
        self.ended: Counter[str] = Counter()
        self.tokens = 0.0
        self.ttft, self.tpot, self.e2e = array("d"), array("d"), array("d")
        self.percentiles: dict[str, float | None] | None = None
        self.late_us = 0
        self.flight: dict[int, _Mean] = {}
        self.cores: dict[int, _Mean] = {}
        self.server: dict[str, _Mean] = {}

    def close(self) -> None:
        """Makes percentiles of the values, and forgets them. Values that come later are not in them."""
        if self.percentiles is None:
            names = (("ttft", "p50"), ("ttft", "p99"), ("tpot", "p50"), ("tpot", "p99"), ("e2e", "p50"))
            ordered = {name: sorted(getattr(self, name)) for name in ("ttft", "tpot", "e2e")}
            self.percentiles = {f"{name}_{p}_s": _percentile(ordered[name], PERCENTILES[p]) for name, p in names}
        self.ttft, self.tpot, self.e2e = array("d"), array("d"), array("d")


class _Mean:
    """A sum and a count."""

    __slots__ = ("count", "total")

    def __init__(self) -> None:
        self.total, self.count = 0.0, 0

    def add(self, value: float) -> None:
        self.total += value
        self.count += 1

    @property
    def value(self) -> float:
        return self.total / self.count


class Intervals:
    """Counts up the intervals of one repeat. ``longest_s`` is the longest request so far; what a server says of itself
    is taken from the seconds of worker ``hearer``, because every worker's seconds have it."""

    def __init__(self, length_s: float, hearer: int = 0) -> None:
        self.length_s = length_s
        self.longest_s = 0.0
        self._hearer = hearer
        self._bins: dict[int, _Bin] = {}
        self._unknown = False

    def add(self, one: Ended | Record) -> None:
        """Takes a request that has ended; one that was never sent counts where it was given up, if that is known."""
        if one.t_end is None:
            return
        own = self._bin(one.t_end)
        own.ended[one.status] += 1
        if one.t_send is None or one.status != "ok":
            return
        self.longest_s = max(self.longest_s, one.t_end - one.t_send)
        if own.percentiles is None:
            for values, value in ((own.ttft, one.ttft_s), (own.tpot, one.tpot_s), (own.e2e, one.e2e_s)):
                if value is not None:
                    values.append(value)
        tokens = one.out_tok if one.out_tok is not None else sum(one.chunk_tok or ())
        self._unknown = self._unknown or (one.out_tok is None and one.chunk_tok is None)
        self._spread(one, one.t_send, tokens)

    def second(self, tick: Tick, server: Mapping[str, float]) -> None:
        """Takes a second of one worker, with what was last seen of the server by then."""
        own = self._bin(max(tick.t - 0.5, 0.0))  # the middle of the second that ends at t
        own.late_us = max(own.late_us, tick.late_us_max)
        own.flight.setdefault(tick.worker, _Mean()).add(tick.in_flight)
        own.cores.setdefault(tick.worker, _Mean()).add(tick.cpu)
        for word, value in server.items() if tick.worker == self._hearer else ():
            own.server.setdefault(word, _Mean()).add(value)

    def close(self, until_s: float) -> None:
        """Closes the intervals that ended by then: their values are no longer needed."""
        for number, one in self._bins.items():
            if (number + 1) * self.length_s <= until_s:
                one.close()

    def made(self, until_s: float, first: int = 0) -> Iterator[Interval]:
        """The intervals from number ``first`` until ``until_s``, which may cut the last one short; in each what is
        known by now."""
        number = first
        while number * self.length_s < until_s - 1e-9:
            start = number * self.length_s
            yield self._made(number, min(self.length_s, until_s - start))
            number += 1

    def _made(self, number: int, length_s: float) -> Interval:
        one = self._bins.get(number) or _Bin()
        one.close()
        means = {word: mean.value for word, mean in one.server.items()}
        return Interval(
            start_s=number * self.length_s,
            length_s=length_s,
            ended=dict(one.ended),
            request_rps=one.ended["ok"] / length_s,
            output_tok_s=None if self._unknown else one.tokens / length_s,
            **cast("dict[str, Any]", one.percentiles or {}),
            in_flight=_sum(one.flight),
            late_max_s=one.late_us / 1e6 if one.flight else None,
            client_cores=_sum(one.cores),
            server=means,
        )

    def _spread(self, one: Ended | Record, t_send: float, tokens: float) -> None:
        """Tokens where they arrived. Nearly every reply lies in one interval; of others the chunks are looked at."""
        assert one.t_end is not None
        last = one.t_last if one.t_last is not None else one.t_end
        chunks = one.chunk_us
        first, end = self._number(t_send + chunks[0] * 1e-6) if chunks else self._number(last), self._number(last)
        if first >= end:
            self._bin(last).tokens += tokens
            return
        weights = one.chunk_tok if one.chunk_tok and len(one.chunk_tok) == len(chunks) and sum(one.chunk_tok) else None
        whole, done = sum(weights) if weights else len(chunks), 0
        for number in range(first, end + 1):
            edge = ((number + 1) * self.length_s - t_send) * 1e6
            upto = len(chunks) if number == end else bisect_right(chunks, edge)
            came = sum(weights[done:upto]) if weights else upto - done
            self._bin(number * self.length_s).tokens += tokens * came / whole
            done = upto

    def _number(self, t: float) -> int:
        return max(int(t / self.length_s + 1e-9), 0)

    def _bin(self, t: float) -> _Bin:
        return self._bins.setdefault(self._number(t), _Bin())


def read_intervals(attempt: Path) -> list[Interval]:
    """The intervals of an attempt as far as they are written; none where none were kept. A last line without its end
    is passed over. Raises StoreError for a line that is none."""
    path, found = attempt / FILE, []
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.endswith(b"\n"):
                    try:
                        found.append(msgspec.json.decode(line, type=Interval))
                    except msgspec.MsgspecError as error:
                        raise StoreError(f"{path}:{number}: this is no interval: {error}.") from error
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror}.") from error
    return found


def _percentile(ordered: list[float], p: float) -> float | None:
    return nearest_rank(ordered, p) if len(ordered) >= floor_of(p) else None


def _sum(by_worker: Mapping[int, _Mean]) -> float | None:
    return sum(mean.value for mean in by_worker.values()) if by_worker else None
