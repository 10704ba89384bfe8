"""One worker of N, of which each runs for itself: ``loadgen run --shard 2/8 --start-at 2026-11-21T12:00:00Z``.

Nothing connects the shards but their number, the scenario and a time of day: each takes the sessions whose number
modulo N is its own, and begins every repeat at a moment that all of them work out alike. What comes of it is N runs,
which ``loadgen merge`` makes one. That the clocks of the machines are set is the user's business; by how much they may
be wrong is asked of each kernel and kept.

In: jobs for all N workers. Out: what a local fleet of one gives, for the share of this one.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from loadgen.drive.job import Job, Shape
from loadgen.errors import LoadgenError, UsageError
from loadgen.fleet import Look, MeasureAt, OnTick, Outcome, Shard, never
from loadgen.fleet.clocks import WorkerClock, day_error_us
from loadgen.fleet.local import drive
from loadgen.fleet.process import Process
from loadgen.record import host_name
from loadgen.scenario import Scenario

GAP_S = 15.0
"""Between two repeats: requests that ran over, the summary, connections and prompts of the next. A shard that is not
ready by then is late, which its records and its clock say."""


def parse(share: str, start_at: str | None) -> Shard:
    """The shard of ``2/8`` and a time of day. Raises UsageError."""
    found = re.fullmatch(r"(\d+)/(\d+)", share)
    index, of = (int(found[1]), int(found[2])) if found else (0, 0)
    if not index < of:
        raise UsageError(f"--shard {share}: write INDEX/N with INDEX from 0 to N - 1, such as 0/4.")
    if start_at is None:
        raise UsageError(
            f"--shard {share}: needs --start-at TIME, the same for all {of}: when the first repeat begins."
        )
    return Shard(index=index, of=of, start_at=_seconds(start_at))


def _seconds(text: str) -> float:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"--start-at {text!r}: write a time such as 2026-11-21T12:00:00Z.") from None
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()


def check(shard: Shard, scenarios: Sequence[Scenario]) -> None:
    """Raises UsageError for what N programs that do not talk cannot do together, and for a start that has passed."""
    for scenario in scenarios:
        reason = _cannot(scenario)
        if reason is not None:
            raise UsageError(f"--shard: {reason}.")
    if shard.start_at <= time.time():
        raise UsageError("--start-at: this time has passed; give all shards one that is some minutes ahead.")


def _cannot(scenario: Scenario) -> str | None:
    load, comparison = scenario.load, scenario.comparison
    launched = [name for name, target in scenario.targets.items() if target.launched]
    if launched:
        return f"every shard would launch {launched[0]!r} for itself; start it, and name its endpoint"
    if load.fleet != "local":
        return f"load.fleet: {load.fleet} brings workers of its own; take one or the other"
    if load.window_s is None or load.warmup_s == "auto":
        return "a repeat needs a length that all shards know: load.window_s and a load.warmup_s in seconds"
    if comparison is not None and comparison.until is not None:
        return "comparison.until adds repeats by what was measured, of which a shard knows only its own"
    if scenario.search is not None:
        return "a search chooses its next load by what was measured, of which a shard knows only its own"
    return None


class Fleet:
    """The one worker of a shard. Use it as a context manager; leaving it ends the worker."""

    def __init__(self, shard: Shard) -> None:
        self._shard = shard
        self._process = Process(shard.index)
        self._next = shard.start_at

    def __enter__(self) -> Fleet:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.end()

    def at_hand(self, wanted: int) -> int:
        """The workers of all shards."""
        if wanted != self._shard.of:
            raise UsageError(f"load.workers: {wanted} workers cannot be {self._shard.of} shards; leave it out.")
        return wanted

    def about(self) -> dict[str, Any]:
        """Which share this is."""
        return {"kind": "shard", "workers": self._shard.of, "shard": msgspec.to_builtins(self._shard)}

    def run(self, jobs: Sequence[Job], on_tick: OnTick, look: Look, measure_at: MeasureAt = never) -> Outcome:
        """Runs this shard's job of a repeat at the repeat's time, and a job that is not shared at once."""
        hooks = (on_tick, look, measure_at)
        if len(jobs) == 1:
            return drive([self._process], jobs, lambda _: time.monotonic_ns(), hooks)
        job, moment = jobs[self._shard.index], self._next
        self._next += slot_s(job.shape)
        late: list[float] = []

        def begin(_: Sequence[int]) -> int:
            ahead = moment - time.time()
            late.append(max(-ahead, 0.0))
            return time.monotonic_ns() + int(ahead * 1e9)

        error = day_error_us()
        outcome = drive([self._process], [job], begin, hooks)
        clock = WorkerClock(worker=job.worker, host=host_name(), offset_ns=0, error_us=error, late_us=late[0] * 1e6)
        share = (job.worker, job.workers)
        return msgspec.structs.replace(outcome, clocks=(clock,), started_at=moment, share=share)


def slot_s(shape: Shape) -> float:
    """Seconds from the start of one repeat to that of the next, which all shards work out alike."""
    if shape.warmup_s is None or shape.window_s is None:
        raise LoadgenError("a repeat without a fixed length has no place in the timetable of shards; report this bug.")
    return shape.warmup_s + shape.window_s + shape.drain_s + GAP_S
