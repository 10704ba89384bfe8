"""How a run is shown while it goes on: what to say at this moment, as text. The command line prints it.

In: the run's events (`run.Watcher`). Out: for a terminal the lines of a live block, as often as it asks for them, for a
pipe one line every ten seconds. It counts what workers say every second; the numbers of the report come from the
records.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from loadgen.drive.tally import Tick
from loadgen.plan import Plan, PlannedCell, Step, estimate
from loadgen.repeat import Result, Second
from loadgen.scenario import Loaded
from loadgen.store import Run

_LINE_EVERY_S = 10.0
_RECENT = 16
"""Ticks that speeds are taken over, of all workers together."""


class _Repeat(msgspec.Struct):
    """What workers have said of the repeat that goes on. ``at`` is in s from its start."""

    at: float = 0.0
    in_flight: dict[int, int] = msgspec.field(default_factory=dict)
    ended: Counter[str] = msgspec.field(default_factory=Counter)
    recent: deque[tuple[int, int]] = msgspec.field(default_factory=lambda: deque(maxlen=_RECENT))
    ttft_ms: deque[float] = msgspec.field(default_factory=lambda: deque(maxlen=400))
    late_us: int = 0
    cpu: dict[int, float] = msgspec.field(default_factory=dict)
    server: Mapping[str, float] = msgspec.field(default_factory=dict)

    def add(self, tick: Tick) -> None:
        """A second of one worker has passed."""
        self.at = max(self.at, tick.t)
        self.in_flight[tick.worker] = tick.in_flight
        self.ended.update(tick.ended)
        self.recent.append((tick.sent, tick.tokens))
        self.ttft_ms.extend(tick.ttft_ms)
        self.late_us = max(self.late_us, tick.late_us_max)
        self.cpu[tick.worker] = tick.cpu
        self.server = tick.server if isinstance(tick, Second) else {}

    def speeds(self) -> tuple[float, float]:
        """Requests sent and tokens, a second, over the last ticks. A worker's tick is one second."""
        seconds = max(len(self.recent) / max(len(self.in_flight), 1), 1)
        return sum(sent for sent, _ in self.recent) / seconds, sum(tokens for _, tokens in self.recent) / seconds


class Progress:
    """A `run.Watcher`. ``write(line)`` gets lines that stay. With ``live`` that is all, and whoever shows the block
    asks for `lines` when it likes, in a thread of its own: time goes by while a server starts, and nothing ticks."""

    def __init__(self, write: Callable[[str], None], live: bool) -> None:
        self._write = write
        self._live = live
        self._lock = threading.Lock()
        self._began = time.monotonic()
        self._step: Step | None = None
        self._number = 0
        self._plan: Plan | None = None
        self._common: dict[str, Any] = {}
        self._load: dict[str, dict[str, Any]] = {}
        self._seconds: dict[str, float] = {}
        self._spared: set[int] = set()
        self._steps = 0
        self._estimate = 0.0
        self._last_line = 0.0
        self._repeat = _Repeat()

    def planned(self, plan: Plan, run: Run, loaded: Loaded) -> None:
        """Says what will be done, on which profile and why, and where it goes."""
        self._plan, self._began, self._spared = plan, time.monotonic(), set()  # a night has two runs
        load = loaded.scenario.load.model_dump()
        self._common, self._load, self._seconds = load, {}, {}
        for cell in plan.cells:
            self.added(cell)
        self.spared(())
        if loaded.profile:
            self._write(loaded.profile_reason)
        cells = "" if plan.searches else f"{counted(len(plan.cells), 'cell')}, "
        self._write(f"{cells}{extent(plan)}; writing to {run.folder}")

    def say(self, text: str) -> None:
        """A line that stays."""
        self._write(text)

    def began(self, step: Step, number: int) -> None:
        """The next repeat starts."""
        with self._lock:
            self._step, self._number, self._repeat = step, number, _Repeat()
        self._pipe()

    def added(self, cell: PlannedCell) -> None:
        """What is asked in a cell, and how long it takes."""
        with self._lock:
            self._load[cell.id] = {**self._common, **(cell.words.get("load") or {})}
            self._seconds[cell.id] = cell.seconds

    def spared(self, steps: Collection[int]) -> None:
        """These repeats of the plan are left out, and nobody waits for them."""
        assert self._plan is not None
        self._spared.update(steps)
        left = [step for number, step in enumerate(self._plan.steps) if number not in self._spared]
        self._steps, self._estimate = len(left), estimate(self._plan.cells, left)
        if self._plan.searches:
            self._steps, self._estimate = probes_of(self._plan), self._plan.estimate_s

    def ticked(self, tick: Tick) -> None:
        """A second of one worker has passed."""
        with self._lock:
            self._repeat.add(tick)
        self._pipe()

    def ended(self, result: Result | None) -> None:
        """A repeat is over."""
        if self._live or result is None:
            return
        one = result.summary
        speed = "" if one.output_tok_s is None else f", {one.output_tok_s:,.1f} output tok/s"
        self._line(
            f"{self._where()}: {one.ok:,} ok, {one.failed:,} failed{speed} ({one.state})", at_once=self._quiet_long()
        )

    def lines(self, width: int) -> list[str]:
        """The live block at this moment, none of its lines longer than ``width`` where words allow; empty before the
        first repeat."""
        with self._lock:
            block = self._block() if self._step is not None else []
        groups = [flowed(group, width, "  " if i else "", "  ") for i, group in enumerate(block)]
        return [line for group in groups for line in group]

    def _pipe(self) -> None:
        if not self._live and self._quiet_long():
            self._line("; ".join("  ".join(group) for group in self._block() if group), at_once=True)

    def _quiet_long(self) -> bool:
        return time.monotonic() - self._last_line >= _LINE_EVERY_S

    def _line(self, text: str, at_once: bool) -> None:
        if at_once:
            self._last_line = time.monotonic()
            self._write(text)

    def _where(self) -> str:
        step = self._step
        number = self._number + 1 - sum(spared < self._number for spared in self._spared)
        most = "at most " if self._at_most else ""
        return f"[{number}/{most}{self._steps}] {step.cell} {step.target} repeat {step.rep}" if step else ""

    @property
    def _at_most(self) -> bool:
        """True where fewer repeats may do."""
        return self._plan is not None and (self._plan.until is not None or bool(self._plan.searches))

    def _block(self) -> list[list[str]]:
        """What belongs together, together: where we are, what is asked, what comes of it, what the server says."""
        return [self._times(), list(self._counts()), list(self._numbers()), list(said(self._repeat.server))]

    def _times(self) -> list[str]:
        elapsed = time.monotonic() - self._began
        left = max(self._estimate - elapsed, 0.0)
        about = "at most" if self._at_most else "about"
        return [self._where(), f"{duration(elapsed)} gone, {about} {duration(left)} left"]

    def _counts(self) -> Iterator[str]:
        one, load = self._repeat, {}
        if self._step is not None:
            load = self._load.get(self._step.cell, {})
            yield f"{duration(one.at)} of about {duration(self._seconds.get(self._step.cell, 0.0))}"
        held = load.get("concurrency") or load.get("max_in_flight")
        yield f"in flight {sum(one.in_flight.values()):,}" + (f" of {held}" if held else "")
        if load.get("rate_rps"):
            yield f"sent {one.speeds()[0]:,.1f} of {load['rate_rps']:g} req/s"
        yield f"done {one.ended['ok']:,}"
        errors = {status: count for status, count in one.ended.items() if status != "ok"}
        yield ", ".join(f"{count:,} {status}" for status, count in errors.items()) or "0 failed"

    def _numbers(self) -> Iterator[str]:
        one = self._repeat
        if not one.recent:
            return
        yield f"output {one.speeds()[1]:,.0f} tok/s"
        if one.ttft_ms:
            ordered = sorted(one.ttft_ms)
            p50, p95 = ordered[len(ordered) // 2], ordered[min(int(len(ordered) * 0.95), len(ordered) - 1)]
            yield f"TTFT p50 {p50:,.1f} ms p95 {p95:,.1f} ms"
        yield f"latest send {one.late_us / 1e3:.2f} ms late"
        yield f"client CPU {sum(one.cpu.values()) * 100:.0f} %"


def said(server: Mapping[str, float]) -> Iterator[str]:
    """What a server and its GPUs say of themselves, as far as they do (the words of `repeat.Second`)."""
    if "running" in server:
        waiting = f", {server['waiting']:.0f} waiting" if "waiting" in server else ""
        yield f"server: {server['running']:.0f} running{waiting}"
    if "kv_use" in server:
        yield f"KV cache {server['kv_use'] * 100:.0f} %"
    if "gpu_watts" in server:
        yield f"GPU {server['gpu_watts']:.0f} W"
    if "gpu_bytes" in server and "gpu_bytes_total" in server:
        yield f"GPU memory {server['gpu_bytes'] / 1e9:.1f} of {server['gpu_bytes_total'] / 1e9:.0f} GB"


def flowed(parts: Sequence[str], width: int, indent: str = "", gap: str = ", ") -> list[str]:
    """Parts in lines of at most ``width`` characters, none of them broken; later lines stand two further in."""
    lines: list[str] = []
    for part in parts:
        if lines and len(lines[-1]) + len(gap) + len(part) <= width - len(gap.rstrip()):
            lines[-1] += gap + part
        else:
            if lines:
                lines[-1] += gap.rstrip()
            lines.append((indent + "  " if lines else indent) + part)
    return lines


def probes_of(plan: Plan) -> int:
    """How many probes the searches of a plan may take."""
    return sum(search.goal.probes for search in plan.searches)


def extent(plan: Plan) -> str:
    """``8 repeats, 4 server starts, about 3 min 10 s``, from the fewest to the most with ``until``."""
    if plan.searches:
        starts = f"{counted(len(plan.servers), 'server start')}, " if plan.servers else ""
        searches = "1 search" if len(plan.searches) == 1 else f"{len(plan.searches)} searches"
        return f"{searches}, at most {probes_of(plan)} probes, {starts}at most {duration(plan.estimate_s)}"
    if plan.until is None or plan.least_s is None:
        starts = f"{counted(len(plan.servers), 'server start')}, " if plan.servers else ""
        return f"{counted(len(plan.steps), 'repeat')}, {starts}about {duration(plan.estimate_s)}"
    least = {cell.id: cell.least for cell in plan.cells}
    fewest = [step for step in plan.steps if step.rep <= least[step.cell]]
    servers = len({step.server for step in fewest} - {None})
    return (
        f"{_from_to(len(fewest), len(plan.steps))} repeats, {_from_to(servers, len(plan.servers))} server starts, "
        f"{duration(plan.least_s)} to {duration(plan.estimate_s)}"
    )


def _from_to(low: int, high: int) -> str:
    return str(low) if low == high else f"{low} to {high}"


def counted(number: int, thing: str) -> str:
    """``1 cell``, ``3 cells``."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def duration(seconds: float) -> str:
    """``42 s``, ``3 min 10 s``, ``2 h 5 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
