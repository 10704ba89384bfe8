"""Records in, numbers out: the one pass over a repeat's records that `summarise` makes.

A record leaves a few floats behind and is forgotten; of a long repeat they wait on the disk, column by column, where a
folder is given for it. The arrivals of chunks are worked on in blocks of records, as arrays: one block costs a handful
of numpy calls.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

from loadgen.arrays import NDArray, np
from loadgen.columns import Column
from loadgen.metrics import METRICS, value
from loadgen.record import Record
from loadgen.sample import Floats, Microseconds
from loadgen.summary import Context, Window

_BLOCK = 2048
_SPILL = 1 << 16
"""Records whose figures are in memory at most, where they may go to the disk."""

_TICK_S = 5.0
_NONE = float("nan")
_SLOW, _FAILED = 1, 2
COLUMNS = ("send", "ttft", "late", "tpot", "e2e", "conn", "in_tok", "out_tok")


class Arrivals:
    """Tokens and gaps from the arrivals of chunks: what is in the window, what is between chunks, what stalled."""

    def __init__(self, window: Window, folder: Path | None = None) -> None:
        # Warm-up is steady when the last two ticks before the window agree, so three spans are counted.
        w0 = window.w0
        # A stamp is a whole microsecond: the last of a window that ends with it may lie up to one behind the end.
        self._spans = ((w0, window.w1 + 1e-6), (w0 - 2 * _TICK_S, w0 - _TICK_S), (w0 - _TICK_S, w0))
        self.tokens = [0.0, 0.0, 0.0]
        self.gaps = Microseconds()
        self.stalls = Column("d", folder)
        self._send: list[float] = []
        self._chunks: list[list[int]] = []
        self._weights: list[Sequence[int]] = []
        self._tokens: list[float] = []
        self._measured: list[bool] = []

    def add(self, record: Record, measured: bool) -> None:
        """Take an ok record. Of those that are measured, gaps and stalls count as well as tokens."""
        assert record.t_send is not None
        chunks = record.chunk_us
        if not chunks:  # a whole reply: all its tokens came at its end
            end = record.t_last if record.t_last is not None else record.t_end
            chunks = [round(((end or 0.0) - record.t_send) * 1e6)]
        weights = record.chunk_tok
        if weights is None or len(weights) != len(chunks) or sum(weights) == 0:
            tokens, weights = record.out_tok or 0, [1] * len(chunks)
        else:  # the server's usage is the count; ids only say how it is spread (a last token may have no chunk)
            tokens = sum(weights) if record.out_tok is None else record.out_tok
        self._send.append(record.t_send)
        self._chunks.append(chunks)
        self._weights.append(weights)
        self._tokens.append(tokens)
        self._measured.append(measured)
        if len(self._chunks) == _BLOCK:
            self.flush()

    def flush(self) -> None:
        """Work on the records that wait. Must be called once more after the last."""
        if not self._chunks:
            return
        lengths = np.fromiter(map(len, self._chunks), np.int64, len(self._chunks))
        total = int(lengths.sum())
        stamps = np.fromiter(chain.from_iterable(self._chunks), np.int64, total)
        weights = np.fromiter(chain.from_iterable(self._weights), np.float64, total)
        starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
        weights *= np.repeat(np.array(self._tokens) / np.add.reduceat(weights, starts), lengths)
        arrivals = stamps * 1e-6 + np.repeat(np.array(self._send), lengths)
        for i, (start, end) in enumerate(self._spans):
            self.tokens[i] += float(weights[(arrivals >= start) & (arrivals <= end)].sum())
        self._count_gaps(stamps, starts, lengths)
        for waiting in (self._send, self._chunks, self._weights, self._tokens, self._measured):
            waiting.clear()

    def _count_gaps(self, stamps: NDArray[np.int64], starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> None:
        # After a chunk that ends its reply there is no gap: -1 keeps its place. A clock that stepped back gives 0.
        gaps = np.maximum(np.diff(stamps, append=0), 0)
        gaps[starts + lengths - 1] = -1
        measured = np.array(self._measured)
        self.gaps.add(gaps[(gaps >= 0) & np.repeat(measured, lengths)])
        longest = np.maximum.reduceat(gaps, starts)[measured]
        self.stalls.extend(np.where(longest >= 0, longest / 1e6, np.nan))


class Collector:
    """What a repeat's records leave behind. Feed with `add`, close with `close`, then read.

    ``folder`` is where the figures of a long repeat wait; without it they are kept in memory, 110 bytes a request."""

    def __init__(self, window: Window, context: Context, folder: Path | None = None) -> None:
        self.window, self.context = window, context
        self.arrivals = Arrivals(window, folder)
        self.columns = {name: Column("d", folder) for name in COLUMNS}
        self.columns["stall"] = self.arrivals.stalls
        self.late, self.lag = Column("d", folder), Column("d", folder)
        self.status: Counter[str] = Counter()
        self.warmup_status: Counter[str] = Counter()
        self.finish: Counter[str] = Counter()
        self.tok_source: Counter[str] = Counter()
        self.clocks: Counter[str] = Counter()
        self.errors: dict[str, list[str]] = {}
        self.prompts = Column("Q", folder)
        self.ok_any_phase = self.completions = self.ended_tok = self.good = 0
        self.scheduled = self.later = self.sent_in_time = 0
        self.sched, self.bad = Column("d", folder), Column("B", folder)
        self.in_flight_s = self.prompt_tok = 0.0
        self.unknown_prompts = self.unknown_tokens = 0
        self.cached_tok = self.cached_of = self.failed_tok = self.wrong_length = 0
        self.chunks = self.chunked_tok = self.coalesced = 0
        self._order = np.empty(0, np.uint32)
        self._taken = 0

    def add(self, record: Record) -> None:
        """Take one record, of any phase and status."""
        w0, w1 = self.window.w0, self.window.w1
        self._taken += 1
        if self._taken % _SPILL == 0:
            for column in self._every():
                column.spill()
        if record.t_send is not None:
            end = record.t_end if record.t_end is not None else w1
            self.in_flight_s += max(0.0, min(end, w1) - max(record.t_send, w0))
        if record.phase == "measure":
            self._count_measured(record)
        elif record.phase == "warmup":
            self.warmup_status[record.status] += 1
        if record.status == "ok" and record.t_send is not None:
            self._count_in_window(record)
            self.arrivals.add(record, record.phase == "measure")

    def close(self) -> None:
        """Finish the block that waits. Nothing may be added afterwards."""
        self.arrivals.flush()
        self._order = _order(self.columns["send"].load())

    def release(self) -> None:
        """Give back what waits on the disk. Nothing can be read afterwards."""
        for column in self._every():
            column.close()

    def _every(self) -> Sequence[Column]:
        return (*self.columns.values(), self.late, self.lag, self.prompts, self.sched, self.bad)

    def outcomes(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Which measured requests failed, and which are no part of goodput, in the order of their schedule."""
        bad = self.bad.load()[_order(self.sched.load())]
        return bad == _FAILED, bad > 0

    def column(self, name: str) -> Floats:
        """A value per ok measured request in the order of sending (records are written when they end), NaN for none."""
        values: Floats = self.columns[name].load()[self._order]
        return values

    def distinct_prompts(self) -> int | None:
        """How many different prompts the measured requests had, None where nobody noted them."""
        if not len(self.prompts):
            return None
        ordered = np.sort(self.prompts.load())
        return 1 + int(np.count_nonzero(ordered[1:] != ordered[:-1]))

    def _count_in_window(self, record: Record) -> None:
        w0, w1 = self.window.w0, self.window.w1
        assert record.t_send is not None
        self.ok_any_phase += 1
        end = record.t_end if record.t_end is not None else record.t_last
        if end is not None and w0 <= end <= w1:
            self.completions += 1
            self.ended_tok += record.out_tok or sum(record.chunk_tok or ())
            self.good += self.within_limits(record)
        first = record.t_first if record.t_first is not None else record.t_last
        first = end if first is None else first
        if first is not None and w0 <= first <= w1:
            self.prompt_tok += record.in_tok or 0
            self.unknown_prompts += record.in_tok is None
        if record.out_tok is None and record.chunk_tok is None:
            self.unknown_tokens += 1

    def within_limits(self, record: Record) -> bool:
        """Whether the request keeps every limit. What a reply does not have (TPOT of one token) cannot be missed."""
        for name, limit in self.context.limits.items():
            got = value(record, name)
            if got is not None and (got > limit if METRICS[name].better == "lower" else got < limit):
                return False
        return True

    def _count_measured(self, record: Record) -> None:
        self.status[record.status] += 1
        # What is unsent for the failure of a turn before it was never on the schedule.
        due_in_time = self.window.w0 <= record.t_sched <= self.window.w1 and record.status != "unsent"
        self.scheduled += due_in_time
        self.later += due_in_time and record.turn > 0
        failed = record.status != "ok" or record.t_send is None
        self.sched.append(record.t_sched)
        self.bad.append(_FAILED if failed else 0 if self.within_limits(record) else _SLOW)
        if record.prompt_sha is not None:
            self.prompts.append(int(record.prompt_sha, 16))
        if record.t_send is not None:
            self.sent_in_time += record.t_send <= self.window.w1
            self.late.append(record.t_send - record.t_sched)
            self.lag.append(_NONE if record.lag_us_max is None else record.lag_us_max / 1e6)
            self.clocks[record.clock or "unknown"] += 1
        elif record.status == "connect_error":  # the client came in time, and nobody was there
            self.sent_in_time += record.t_sched <= self.window.w1
        if record.status == "ok" and record.t_send is not None:
            self._take_ok(record, record.t_send)
        else:
            self.failed_tok += sum(record.chunk_tok or ()) if record.out_tok is None else record.out_tok
            seen = self.errors.setdefault(record.status, [])
            if record.err is not None and len(seen) < 3 and record.err not in seen:
                seen.append(record.err)

    def _take_ok(self, record: Record, t_send: float) -> None:
        held = (t_send, record.ttft_s, t_send - record.t_sched, record.tpot_s, record.e2e_s, record.conn_s)
        for name, got in zip(COLUMNS, (*held, record.in_tok, record.out_tok), strict=True):
            self.columns[name].append(_NONE if got is None else got)
        self.finish[record.finish or "unknown"] += 1
        self.tok_source[record.tok_source or "unknown"] += 1
        if self.context.exact_tok is not None:
            asked = self.context.exact_tok if record.ask_tok is None else record.ask_tok
            self.wrong_length += record.out_tok != asked
        if record.cached_tok is not None and record.in_tok is not None:
            self.cached_tok += record.cached_tok
            self.cached_of += record.in_tok
        if record.out_tok is not None and record.chunk_us:
            self.chunks += len(record.chunk_us)
            self.chunked_tok += record.out_tok
        self.coalesced += record.coalesced


def _order(times: Floats) -> NDArray[np.uint32]:
    """The places of the values in ascending order; four bytes each are enough for four thousand million."""
    return np.argsort(times, kind="stable").astype(np.uint32)
