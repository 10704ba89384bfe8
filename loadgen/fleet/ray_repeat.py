"""One repeat of a Ray fleet while it goes on: batches are fetched by number, written down, and so acknowledged.

In: actors that have made their workers ready, and how their clocks stand. Out: the `Outcome` of the repeat. An actor
that is gone, or says nothing any more, costs what it had not handed over; the others finish.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from loadgen.drive.job import Job
from loadgen.drive.tally import Audit
from loadgen.fleet import LOOK_S, Look, MeasureAt, OnTick, Outcome, Stop
from loadgen.fleet.clocks import Offset, WorkerClock
from loadgen.fleet.cluster import why_lost
from loadgen.fleet.node import About, Batch
from loadgen.fleet.received import Latencies, Received
from loadgen.record import lines_name

_LEAD_NS = 300_000_000
"""Workers are told to start this much ahead: ten times what a call takes on a busy network."""
_SILENT_S = 60.0
"""A node that hands over nothing for so long is taken for lost; it would have something every second."""


class Member:
    """The actor of one place, and what is known of it. ``lost`` says why it is no more."""

    def __init__(self, place_index: int, handle: Any) -> None:
        self.place = place_index
        self.actor = handle
        self.about: About | None = None
        self.lost: str | None = None

    @property
    def host(self) -> str:
        return self.about.host if self.about is not None else "?"


class Repeat:
    """One repeat while it goes on: which batch of which worker is awaited, and what has come."""

    def __init__(self, ray: Any, workers: Sequence[tuple[Member, Job, Offset]]) -> None:
        self._ray = ray
        self._workers = workers
        self._files = {
            job.worker: Received(Path(job.out).with_name(lines_name(member.host, job.worker)))
            for member, job, _ in workers
        }
        self._heard = {job.worker: time.monotonic() for _, job, _ in workers}
        self._latencies = Latencies()
        self._audits: list[Audit] = []
        self._lost: list[str] = []

    def run(self, hooks: tuple[OnTick, Look, MeasureAt], offset_of: Callable[[Member], Offset]) -> Outcome:
        """From the start to the last batch of everybody."""
        try:
            start = time.monotonic_ns() + _LEAD_NS
            told = [member.actor.start.remote(start + offset.ns) for member, _, offset in self._workers]
            started_at = time.time() + (start - time.monotonic_ns()) / 1e9
            self._follow(*hooks)
            late = [self._late(ref, start + offset.ns) for ref, (_, _, offset) in zip(told, self._workers, strict=True)]
        finally:
            for file in self._files.values():
                file.close()
        clocks = tuple(self._clock(i, late[i], offset_of) for i in range(len(self._workers)))
        for member, _, _ in self._workers:
            if member.lost is None:
                member.actor.forget.remote()
        return Outcome(
            start_ns=start,
            started_at=started_at,
            audits=tuple(self._audits),
            lost=tuple(self._lost),
            clocks=clocks,
            intervals=self._latencies.intervals(),
            far=True,
        )

    def _follow(self, on_tick: OnTick, look: Look, measure_at: MeasureAt) -> None:
        awaited = {self._ask(number): number for number in range(len(self._workers))}
        told: Stop | None = None
        measuring = False
        while awaited:
            done, _ = self._ray.wait(list(awaited), num_returns=1, timeout=LOOK_S)
            for ref in done:
                number = awaited.pop(ref)
                if self._took(number, ref, on_tick):
                    awaited[self._ask(number)] = number
            for ref, number in list(awaited.items()):
                if time.monotonic() - self._heard[self._workers[number][1].worker] > _SILENT_S:
                    self._lose(number, f"handed nothing over for {_SILENT_S:.0f} s")
                    del awaited[ref]
            wanted = look()
            if wanted is not None and wanted != told:
                told = wanted
                self._tell_all("stop", [wanted for _ in self._workers])
            if not measuring and (at := measure_at()) is not None:
                measuring = True
                self._tell_all("measure", [at + offset.ns for _, _, offset in self._workers])

    def _ask(self, number: int) -> Any:
        member, job, _ = self._workers[number]
        return member.actor.batch.remote(self._files[job.worker].wanted)

    def _took(self, number: int, ref: Any, on_tick: OnTick) -> bool:
        """Takes a batch that has come. False if it was the worker's last, or there will be no more."""
        member, job, _ = self._workers[number]
        try:
            batch = msgspec.msgpack.decode(self._ray.get(ref), type=Batch)
        except self._ray.exceptions.ActorUnavailableError:  # the way is cut, or the node is gone: Ray finds out which
            time.sleep(LOOK_S)
            return True
        except self._ray.exceptions.RayError as error:
            self._lose(number, why_lost(error))
            return False
        self._heard[job.worker] = time.monotonic()
        if not self._files[job.worker].take(batch):
            return True
        for tick in batch.ticks:
            on_tick(tick)
        for counted in batch.counted:
            self._latencies.add(counted)
        if batch.done is not None:
            self._audits.append(batch.done)
        if batch.lost is not None:
            self._lost.append(f"{batch.lost} on {member.host}")
        return not batch.last

    def _lose(self, number: int, why: str) -> None:
        member, job, _ = self._workers[number]
        member.lost = why
        self._ray.kill(member.actor)  # should it be there after all, its worker must not go on sending
        self._lost.append(f"worker {job.worker} on {member.host} is lost: {why}")

    def _tell_all(self, kind: str, values: Sequence[Any]) -> None:
        for (member, _, _), value in zip(self._workers, values, strict=True):
            if member.lost is None:
                member.actor.say.remote(kind, value)

    def _late(self, ref: Any, start: int) -> float:
        """Microseconds after the start at which a worker was told of it."""
        try:
            return float(max(self._ray.get(ref, timeout=1.0) - start, 0) / 1e3)
        except self._ray.exceptions.RayError:  # lost: what it measured before is right by its clock all the same
            return 0.0

    def _clock(self, number: int, late_us: float, offset_of: Callable[[Member], Offset]) -> WorkerClock:
        member, job, offset = self._workers[number]
        drift: float | None = None
        if member.lost is None:
            try:
                drift = (offset_of(member).ns - offset.ns) / 1e3
            except self._ray.exceptions.RayError as error:
                member.lost = why_lost(error)
        return WorkerClock(
            worker=job.worker,
            host=member.host,
            offset_ns=offset.ns,
            error_us=offset.error_ns / 1e3,
            drift_us=drift,
            late_us=late_us,
        )
