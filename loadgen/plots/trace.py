"""The inside of one repeat: its request lines in one pass, as arrays that charts are made of.

In: an attempt's folder. Out: a `Trace`. A request leaves ten floats behind and is forgotten; arrivals of chunks are
counted in a grid that coarsens as the repeat gets longer, so that an hour takes no more memory than a minute.
"""

from __future__ import annotations

import zlib
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path

import msgspec

from loadgen.arrays import NDArray, np
from loadgen.assemble import ReportCell, RunReport
from loadgen.errors import StoreError
from loadgen.record import Record, read_records
from loadgen.repeat import Result
from loadgen.store import Run, request_files

Floats = NDArray[np.float64]

COLUMNS = ("sched", "send", "queue", "first", "last", "end", "ttft", "e2e", "ok", "measured")
"""What is kept of each request that was sent, times in seconds from the start of the repeat; NaN for none. ``queue`` is
how long the server says that it waited (0 where it does not); ``ok`` and ``measured`` are 0 or 1."""

GAP_EDGES_MS = tuple(float(f"{step * 10.0**power:.3g}") for power in range(-2, 5) for step in (1, 1.6, 2.5, 4, 6.3))
"""Lower edges of the rows that gaps are counted in: five to a decade, from 10 us to a minute."""

_BLOCK = 1024
_FINEST_S = 0.01
_MOST_STEPS = 4096
_MOST_SAID = 8192


class Grid:
    """Counts over time in ``rows``. A step is ``width_s`` long; where there would be over 4096, steps are merged."""

    def __init__(self, rows: int) -> None:
        self.width_s = _FINEST_S
        self.counts = np.zeros((rows, 64))

    def add(self, times: Floats, rows: NDArray[np.int64], weights: Floats | None = None) -> None:
        """Count each time in its row; what lies before the start counts as the start."""
        if not len(times):
            return
        while times.max() >= self.width_s * _MOST_STEPS:
            self._coarsen()
        steps = np.maximum(times / self.width_s, 0).astype(np.int64)
        height, length = self.counts.shape
        if steps.max() >= length:
            longer = min(_MOST_STEPS, max(2 * length, int(steps.max()) + 1))
            self.counts = np.pad(self.counts, ((0, 0), (0, longer - length)))
            length = longer
        self.counts += np.bincount(rows * length + steps, weights, height * length).reshape(height, length)

    def over(self, width_s: float, length: int) -> Floats:
        """The counts in ``length`` steps of ``width_s``, a multiple of the grid's own; rows first."""
        steps = np.minimum(np.arange(self.counts.shape[1]) // round(width_s / self.width_s), length - 1)
        found = np.zeros((self.counts.shape[0], length))
        np.add.at(found.T, steps, self.counts.T)
        return found

    def _coarsen(self) -> None:
        rows = self.counts.shape[0]
        even = np.pad(self.counts, ((0, 0), (0, self.counts.shape[1] % 2)))
        self.counts = even.reshape(rows, -1, 2).sum(axis=2)
        self.width_s *= 2


class Trace(msgspec.Struct, frozen=True):
    """One repeat of one target. ``columns`` are in the order of sending; ``gaps`` counts the gaps between chunks of ok
    requests by `GAP_EDGES_MS`, at their end; ``tokens`` the output tokens as they arrived. ``server`` is what the
    server said of itself: by word, (s from the start, value)."""

    cell: str
    target: str
    rep: int
    window: tuple[float, float]
    columns: Mapping[str, Floats]
    gaps: Grid
    tokens: Grid
    server: Mapping[str, list[tuple[float, float]]]

    def measured(self, name: str) -> Floats:
        """A column over the ok requests of the measured phase that have a value, in ascending order."""
        values = self.columns[name][(self.columns["ok"] * self.columns["measured"]) > 0]
        return np.sort(values[~np.isnan(values)])

    @property
    def end_s(self) -> float:
        """When the last request was over, or the window if that is later."""
        ends = self.columns["end"]
        return max(self.window[1], float(np.nanmax(ends)) if len(ends) and not np.isnan(ends).all() else 0.0)


def traces(report: RunReport, cell: ReportCell, every: bool = True, target_name: str | None = None) -> Iterator[Trace]:
    """The repeats of a cell that are worth a look, one at a time: those that are valid, of a target without one what
    there is. Not ``every``: the first of each target. None where the request lines are gone (a retention, an import).
    With ``target_name`` those of that target alone.
    """
    run = Run(Path(report.path))
    for target in cell.targets:
        if target_name not in (None, target.target):
            continue
        valid = target.good or [result for result in target.results if result is not None]
        for result in valid if every else valid[:1]:
            folder = run.repeat(cell.id, target.target, result.rep).folder / f"attempt-{result.attempt}"
            if request_files(folder):
                yield read_trace(folder, result)


def read_trace(attempt: Path, result: Result) -> Trace:
    """The trace of a repeat from its attempt's folder. Raises StoreError for files that cannot be read."""
    try:
        return trace(read_records(request_files(attempt)), result, read_server(attempt / "ticks.jsonl"))
    except (OSError, EOFError, zlib.error, msgspec.MsgspecError) as error:
        raise StoreError(f"{attempt}: its request lines cannot be read: {error}.") from error


def trace(
    records: Iterable[Record], result: Result, server: Mapping[str, list[tuple[float, float]]] | None = None
) -> Trace:
    """The trace of the records of a repeat, in any order; memory grows by 80 bytes a request."""
    columns = {name: array("d") for name in COLUMNS}
    taken = [columns[name].append for name in COLUMNS]
    chunks = _Chunks()
    for record in records:
        if record.t_send is not None and record.phase != "probe":
            _keep(record, taken)
            if record.status == "ok" and record.chunk_us:
                chunks.add(record, record.t_send)
    chunks.flush()
    order = np.argsort(np.frombuffer(columns["send"]), kind="stable")
    return Trace(
        cell=result.cell,
        target=result.target,
        rep=result.rep,
        window=(result.summary.window.w0, result.summary.window.w1),
        columns={name: np.frombuffer(column)[order] for name, column in columns.items()},
        gaps=chunks.gaps,
        tokens=chunks.tokens,
        server=server or {},
    )


def _keep(record: Record, taken: list[Callable[[float], None]]) -> None:
    queue = (record.server_times or {}).get("queue_time_ms")
    held = (
        record.t_sched,
        record.t_send,
        queue / 1e3 if isinstance(queue, int | float) else 0.0,
        record.t_first,
        record.t_last,
        record.t_end,
        record.ttft_s,
        record.e2e_s,
        float(record.status == "ok"),
        float(record.phase == "measure"),
    )
    for take, value in zip(taken, held, strict=True):
        take(float("nan") if value is None else value)


class _Chunks:
    """Arrivals in blocks of records, as arrays."""

    def __init__(self) -> None:
        self.gaps = Grid(len(GAP_EDGES_MS))
        self.tokens = Grid(1)
        self._edges = np.array(GAP_EDGES_MS[1:]) * 1e3
        self._sends: list[float] = []
        self._stamps: list[list[int]] = []
        self._tokens: list[int] = []

    def add(self, record: Record, t_send: float) -> None:
        self._sends.append(t_send)
        self._stamps.append(record.chunk_us)
        self._tokens.append(record.out_tok if record.out_tok is not None else len(record.chunk_us))
        if len(self._sends) == _BLOCK:
            self.flush()

    def flush(self) -> None:
        if not self._sends:
            return
        lengths = np.fromiter(map(len, self._stamps), np.int64, len(self._stamps))
        stamps = np.fromiter(chain.from_iterable(self._stamps), np.int64, int(lengths.sum()))
        times = stamps * 1e-6 + np.repeat(np.array(self._sends), lengths)
        # A chunk counts for its share of the reply's tokens: for a picture the tokens in each are near enough alike.
        self.tokens.add(times, np.zeros(len(times), np.int64), np.repeat(np.array(self._tokens) / lengths, lengths))
        follows = np.ones(len(stamps), dtype=bool)
        follows[np.cumsum(lengths) - lengths] = False  # the first chunk of a reply has no gap before it
        gaps = np.maximum(np.diff(stamps, prepend=0), 0)[follows]
        self.gaps.add(times[follows], np.searchsorted(self._edges, gaps, side="right"))
        self._sends, self._stamps, self._tokens = [], [], []


class _Second(msgspec.Struct):
    """What is read of a line of ticks.jsonl."""

    worker: int
    t: float
    server: dict[str, float] = msgspec.field(default_factory=dict)


def read_server(path: Path) -> dict[str, list[tuple[float, float]]]:
    """What a server said of itself over a repeat, by word, from the ticks of the first worker; nothing where it was not
    kept. A damaged line ends it. Of hours every second, fourth ... value is kept."""
    found: dict[str, list[tuple[float, float]]] = {}
    if not path.exists():
        return found
    with path.open("rb") as lines:
        for line in lines:
            try:
                second = msgspec.json.decode(line, type=_Second)
            except msgspec.DecodeError:
                break
            for word, value in second.server.items() if second.worker == 0 else ():
                said = found.setdefault(word, [])
                said.append((second.t, value))
                if len(said) > _MOST_SAID:
                    del said[1::2]
    return found
