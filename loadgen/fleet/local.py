"""Worker processes on this machine: started once, given one job after the other, stopped with the run.

In: jobs (one a worker) for a repeat. Out: their audits; the records are in the files that the workers wrote. A worker
that dies costs its share of the load, and the caller is told. All workers start at one moment of the clock that they
share (CLOCK_MONOTONIC).
"""

from __future__ import annotations

import selectors
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from loadgen.drive.job import Job
from loadgen.drive.tally import Audit, Tick
from loadgen.fleet import LOOK_S, READY_S, Look, MeasureAt, OnTick, Outcome, Stop, check_digests, never
from loadgen.fleet.process import Process

_LEAD_NS = 50_000_000
"""Workers are told to start this much ahead, so that all of them have the message by then."""


class Fleet:
    """``workers`` processes. Use it as a context manager; leaving it ends them."""

    def __init__(self, workers: int) -> None:
        self._processes = [Process(index) for index in range(workers)]

    def __enter__(self) -> Fleet:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.end()

    def at_hand(self, wanted: int) -> int:
        """As many as are wanted: one that died is started anew."""
        return wanted

    def about(self) -> dict[str, Any]:
        """Where the workers ran: run.json says all else of this machine."""
        return {"kind": "local", "workers": len(self._processes)}

    def run(self, jobs: Sequence[Job], on_tick: OnTick, look: Look, measure_at: MeasureAt = never) -> Outcome:
        """Runs one repeat (see `loadgen.fleet.Fleet.run`)."""

        def begin(digests: Sequence[int]) -> int:
            check_digests(jobs[0].shape, jobs[0].seed, digests)
            return time.monotonic_ns() + _LEAD_NS

        return drive(self._processes[: len(jobs)], jobs, begin, (on_tick, look, measure_at))


def drive(
    taken: Sequence[Process],
    jobs: Sequence[Job],
    begin: Callable[[Sequence[int]], int],
    hooks: tuple[OnTick, Look, MeasureAt],
) -> Outcome:
    """One repeat of these processes. ``begin`` has the digests of their shares, and gives the start (monotonic ns)."""
    try:
        for process, job in zip(taken, jobs, strict=True):
            process.revive()
            process.say("job", job)
        ready = [process.wait("ready", READY_S) for process in taken]
        return _follow(taken, begin([int(message["digest"]) for message in ready]), *hooks)
    except BaseException:
        for process in taken:  # in the middle of this job they would misunderstand the next
            process.end()
        raise


def _follow(taken: Sequence[Process], start: int, on_tick: OnTick, look: Look, measure_at: MeasureAt) -> Outcome:
    for process in taken:
        process.say("start", start)
    started_at = time.time() + (start - time.monotonic_ns()) / 1e9
    audits: dict[int, Audit] = {}
    lost: dict[int, str] = {}
    told: Stop | None = None
    measuring = False
    with selectors.DefaultSelector() as selector:
        for process in taken:
            selector.register(process.stdout, selectors.EVENT_READ, process)
        while len(audits) + len(lost) < len(taken):
            for key, _ in selector.select(LOOK_S):
                process = key.data
                for message in process.messages():
                    if "tick" in message:
                        on_tick(msgspec.convert(message["tick"], Tick))
                    elif "done" in message:
                        audits[process.index] = msgspec.convert(message["done"], Audit)
                    elif "failed" in message:
                        lost[process.index] = f"worker {process.index} failed: {message['failed']['text']}"
                if process.gone:
                    selector.unregister(process.stdout)
                    if process.index not in audits:
                        lost.setdefault(process.index, process.epitaph())
            wanted = look()
            if wanted is not None and wanted != told:
                told = wanted
                _tell(taken, "stop", wanted)
            if not measuring and (at := measure_at()) is not None:
                measuring = True
                _tell(taken, "measure", at)
    return Outcome(start_ns=start, started_at=started_at, audits=tuple(audits.values()), lost=tuple(lost.values()))


def _tell(processes: Sequence[Process], kind: str, value: Any) -> None:
    for process in processes:
        if not process.gone:
            process.say(kind, value)
