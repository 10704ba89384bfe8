"""The parent follows what its workers write, and writes down each interval when it is over.

In: the request files of an attempt while they grow, and the workers' seconds. Out: ``intervals.jsonl``, a line an
interval: whoever looks at a run that goes on, or at what a kill left of one, has it in stretches. It reads what is
written anyway, in the parent: the workers, which measure, do nothing for it. Shards, which nobody follows together,
are put together when they are merged.

An interval is written when requests as long as the longest so far would have ended, so that the tokens in it have come.
A longer one adds its tokens later; when the repeat is over the file is written anew, with all of them.
"""

from __future__ import annotations

import contextlib
import heapq
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from loadgen.drive.tally import Tick
from loadgen.long.intervals import FILE, Ended, Interval, Intervals
from loadgen.record import read_records
from loadgen.store import append_line, request_files, write_stream

SETTLE_MOST_S = 120.0
"""The longest that an interval waits for the tokens of requests that are still on their way."""

_GRACE_S = 1.0
"""A worker writes what has ended when it has nothing more urgent to do; a second is plenty."""

_DISORDER_S = 10.0
"""By how much a line may stand behind one that ended later: a worker writes in the order of the ends, nearly."""

_LOOK_S = 0.9
_SILENT_S = 10.0
_BLOCK = 1 << 20


class Follower:
    """Follows one attempt in intervals of ``length_s``; without a length it does nothing."""

    def __init__(self, attempt: Path, length_s: float | None) -> None:
        self._attempt = attempt
        self._intervals = Intervals(length_s) if length_s is not None else None
        self._reached: dict[int, float] = {}
        self._tails: dict[Path, _Tail] = {}
        self._looked_s = 0.0
        self._written = 0

    def second(self, tick: Tick, server: Mapping[str, float]) -> None:
        """A second of one worker has passed. Raises StoreError when a line cannot be written."""
        if self._intervals is None:
            return
        self._intervals.second(tick, server)
        self._reached[tick.worker] = tick.t
        if tick.t >= self._looked_s + _LOOK_S:
            self._looked_s = tick.t
            self._read(self._intervals)
            # A worker that has said nothing for long is gone; nobody waits for it.
            self._write_ended(self._intervals, min(t for t in self._reached.values() if t > tick.t - _SILENT_S))

    def finish(self) -> list[Interval]:
        """Every interval of the repeat that is over; the file is written anew. Raises StoreError."""
        if self._intervals is None:
            return []
        self._read(self._intervals)
        return _written(self._attempt, self._intervals, max(self._reached.values(), default=0.0))

    def _read(self, intervals: Intervals) -> None:
        for path in request_files(self._attempt):
            for one in self._tails.setdefault(path, _Tail(path)).ended():
                intervals.add(one)

    def _write_ended(self, intervals: Intervals, now_s: float) -> None:
        settled = now_s - _GRACE_S - min(intervals.longest_s, SETTLE_MOST_S)
        whole = int(max(settled, 0.0) / intervals.length_s)
        intervals.close(settled)
        for one in intervals.made(whole * intervals.length_s, self._written):
            append_line(self._attempt / FILE, one)
        self._written = max(self._written, whole)


class _Second(Tick, kw_only=True):
    """What is read of a line of ``ticks.jsonl``."""

    server: dict[str, float] = msgspec.field(default_factory=dict)


def made_of_parts(attempt: Path, length_s: float | None, hearer: int) -> list[Interval]:
    """The intervals of a repeat whose workers nobody followed, of the request lines and the seconds that they left;
    written down. ``hearer`` is the worker whose seconds have what the server said; without a length nothing is done.
    Raises StoreError."""
    if length_s is None:
        return []
    intervals, reached = Intervals(length_s, hearer), 0.0
    for second in _seconds(attempt / "ticks.jsonl"):
        intervals.second(second, second.server)
        reached = max(reached, second.t)
    files = [read_records([path]) for path in request_files(attempt)]
    closed = 0.0
    for one in heapq.merge(*files, key=lambda record: record.t_end or 0.0):
        intervals.add(one)
        settled = (one.t_end or 0.0) - _DISORDER_S
        if settled > closed + length_s:
            intervals.close(settled)
            closed = settled
    return _written(attempt, intervals, reached)


def _seconds(path: Path) -> Iterator[_Second]:
    """Those that are whole."""
    decode = msgspec.json.Decoder(_Second).decode
    with path.open("rb") as lines:
        for line in lines:
            with contextlib.suppress(msgspec.MsgspecError):  # cut off by a kill
                yield decode(line)


def _written(attempt: Path, intervals: Intervals, until_s: float) -> list[Interval]:
    every = list(intervals.made(until_s))
    encode = msgspec.json.Encoder().encode
    write_stream(attempt / FILE, lambda file: file.writelines(encode(one) + b"\n" for one in every))
    return every


class _Tail:
    """The lines of a file that grows, each once. Memory is a block and one line."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._decode = msgspec.json.Decoder(Ended).decode

    def ended(self) -> Iterator[Ended]:
        """What was written since the last time, whole lines only."""
        with self._path.open("rb") as file:
            file.seek(self._offset)
            rest = b""
            while block := file.read(_BLOCK):
                *lines, rest = (rest + block).split(b"\n")
                self._offset += sum(map(len, lines)) + len(lines)
                for line in lines:
                    with contextlib.suppress(msgspec.MsgspecError):  # who reads the records at the end will say so
                        yield self._decode(line)
