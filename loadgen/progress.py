"""How a run is shown while it goes on: what to say at this moment, as text. The command line prints it.

In: the run's events (`run.Watcher`). Out: for a terminal the lines of a live block, for a pipe one line every ten
seconds. It counts what workers say every second; the numbers of the report come from the records.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Collection

from loadgen.drive.tally import Tick
from loadgen.plan import Plan, Step, estimate
from loadgen.repeat import Result
from loadgen.scenario import Loaded
from loadgen.store import Run

_LINE_EVERY_S = 10.0


class Progress:
    """A `run.Watcher`. ``write(line)`` gets lines that stay, ``show(lines)`` the live block (None: there is none)."""

    def __init__(self, write: Callable[[str], None], show: Callable[[list[str]], None] | None) -> None:
        self._write = write
        self._show = show
        self._began = time.monotonic()
        self._step: Step | None = None
        self._number = 0
        self._plan: Plan | None = None
        self._spared: set[int] = set()
        self._steps = 0
        self._estimate = 0.0
        self._last_line = 0.0
        self._late_us = 0
        self._reset()

    def planned(self, plan: Plan, run: Run, loaded: Loaded) -> None:
        """Says what will be done, on which profile and why, and where it goes."""
        self._plan = plan
        self.spared(())
        if loaded.profile:
            self._write(loaded.profile_reason)
        self._write(f"{counted(len(plan.cells), 'cell')}, {extent(plan)}; writing to {run.folder}")

    def say(self, text: str) -> None:
        """A line that stays."""
        self._write(text)

    def began(self, step: Step, number: int) -> None:
        """The next repeat starts."""
        self._step, self._number = step, number
        self._reset()
        self._update()

    def spared(self, steps: Collection[int]) -> None:
        """These repeats of the plan are left out, and nobody waits for them."""
        assert self._plan is not None
        self._spared.update(steps)
        left = [step for number, step in enumerate(self._plan.steps) if number not in self._spared]
        self._steps, self._estimate = len(left), estimate(self._plan.cells, left)

    def ticked(self, tick: Tick) -> None:
        """A second of one worker has passed."""
        self._in_flight[tick.worker] = tick.in_flight
        self._ended.update(tick.ended)
        self._tokens.append((tick.t, tick.tokens))
        self._ttft.extend(tick.ttft_ms)
        self._late_us = max(self._late_us, tick.late_us_max)
        self._cpu[tick.worker] = tick.cpu
        self._update()

    def ended(self, result: Result | None) -> None:
        """A repeat is over."""
        if self._show is not None or result is None:
            return
        one = result.summary
        speed = "" if one.output_tok_s is None else f", {one.output_tok_s:.1f} output tok/s"
        self._line(
            f"{self._where()}: {one.ok} ok, {one.failed} failed{speed} ({one.state})", at_once=self._quiet_long()
        )

    def _reset(self) -> None:
        self._in_flight: dict[int, int] = {}
        self._ended: Counter[str] = Counter()
        self._tokens: deque[tuple[float, int]] = deque(maxlen=16)
        self._ttft: deque[float] = deque(maxlen=400)
        self._late_us = 0
        self._cpu: dict[int, float] = {}

    def _update(self) -> None:
        if self._show is not None:
            self._show(self._block())
        elif self._quiet_long():
            self._line("; ".join(line.strip() for line in self._block()), at_once=True)

    def _quiet_long(self) -> bool:
        return time.monotonic() - self._last_line >= _LINE_EVERY_S

    def _line(self, text: str, at_once: bool) -> None:
        if at_once:
            self._last_line = time.monotonic()
            self._write(text)

    def _where(self) -> str:
        step = self._step
        number = self._number + 1 - sum(spared < self._number for spared in self._spared)
        most = "at most " if self._plan is not None and self._plan.until is not None else ""
        return f"[{number}/{most}{self._steps}] {step.cell} {step.target} repeat {step.rep}" if step else ""

    def _block(self) -> list[str]:
        elapsed = time.monotonic() - self._began
        left = max(self._estimate - elapsed, 0.0)
        errors = {status: count for status, count in self._ended.items() if status != "ok"}
        failed = ", ".join(f"{count} {status}" for status, count in errors.items()) or "0 failed"
        about = "at most" if self._plan is not None and self._plan.until is not None else "about"
        lines = [
            f"{self._where()}  {duration(elapsed)} gone, {about} {duration(left)} left",
            f"  in flight {sum(self._in_flight.values())}  done {self._ended['ok']}  {failed}",
        ]
        if self._ttft:
            ordered = sorted(self._ttft)
            p50, p95 = ordered[len(ordered) // 2], ordered[min(int(len(ordered) * 0.95), len(ordered) - 1)]
            lines.append(
                f"  output {self._speed():.0f} tok/s  TTFT p50 {p50:.1f} ms p95 {p95:.1f} ms  "
                f"latest send {self._late_us / 1e3:.2f} ms late  client CPU {sum(self._cpu.values()) * 100:.0f} %"
            )
        return lines

    def _speed(self) -> float:
        """Tokens a second over the last ticks. A worker's tick is one second."""
        seconds = max(len(self._tokens) / max(len(self._in_flight), 1), 1)
        return sum(tokens for _, tokens in self._tokens) / seconds


def extent(plan: Plan) -> str:
    """``8 repeats, 4 server starts, about 3 min 10 s``, from the fewest to the most with ``until``."""
    if plan.until is None or plan.least_s is None:
        starts = counted(len(plan.servers), "server start")
        return f"{counted(len(plan.steps), 'repeat')}, {starts}, about {duration(plan.estimate_s)}"
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
