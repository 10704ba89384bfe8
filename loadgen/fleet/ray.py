"""One worker on each node of a Ray cluster: ``load: {fleet: ray, workers: 4}``, or ``loadgen run --fleet ray``.

In: jobs (one a worker) for a repeat, and a cluster that exists. Out: what a local fleet gives, with the clocks of the
nodes. Ray places one actor on a node (`loadgen.fleet.node`), which starts the very worker process that a local fleet
starts: no token, no socket and no stamp passes through Ray, only the job, the start and a batch of finished request
lines a second.

All workers start at one moment, which each is told by its own clock: before every repeat the offset of every clock is
measured (`loadgen.fleet.clocks`). Batches are fetched by number and written into the run's folder before the next one
is asked for; that is what acknowledges them. A worker or node that is lost costs what it had not handed over.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from loadgen import __version__, errors
from loadgen.drive.job import Job
from loadgen.drive.tally import Audit
from loadgen.errors import LoadgenError, UsageError
from loadgen.fleet import LOOK_S, READY_S, Look, MeasureAt, OnTick, Outcome, Stop, check_digests, never
from loadgen.fleet.clocks import Offset, WorkerClock, measured
from loadgen.fleet.cluster import actor, connect, leave, nodes_for_workers, place, why_lost
from loadgen.fleet.node import About, Batch, Node, Ready
from loadgen.fleet.received import Latencies, Received
from loadgen.record import lines_name
from loadgen.summary import Doubt

_LEAD_NS = 300_000_000
"""Workers are told to start this much ahead: ten times what a call takes on a busy network."""
_CALL_S = 30.0
_REVIVE_S = 20.0
_SILENT_S = 60.0
"""A node that hands over nothing for so long is taken for lost; it would have something every second."""


class _Member:
    """The actor of one place, and what is known of it. ``lost`` says why it is no more."""

    def __init__(self, place_index: int, handle: Any) -> None:
        self.place = place_index
        self.actor = handle
        self.about: About | None = None
        self.lost: str | None = None

    @property
    def host(self) -> str:
        return self.about.host if self.about is not None else "?"


class Fleet:
    """Workers on nodes of their own. Use it as a context manager; leaving it ends them and leaves the cluster."""

    def __init__(self, workers: int, address: str | None = None) -> None:
        self._ray = connect(address)
        self._group: Any = None
        try:
            self._group = place(self._ray, workers)
            self._members = [_Member(index, self._actor(index)) for index in range(workers)]
            for member in self._members:
                member.about = self._greet(member.actor, _CALL_S)
        except BaseException:
            leave(self._ray, self._group)
            raise

    def __enter__(self) -> Fleet:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._each(self._alive(), lambda member: member.actor.close.remote(), _CALL_S)
        finally:
            leave(self._ray, self._group)

    def at_hand(self, wanted: int) -> int:
        """How many workers there are, at most ``wanted``; one that was lost comes back if there is a node for it."""
        for member in self._members:
            if member.lost is not None and len(nodes_for_workers(self._ray)) >= len(self._members):
                self._revive(member)
        alive = len(self._alive())
        if not alive:
            raise LoadgenError(f"every worker of the Ray cluster is lost: {self._epitaphs()}.")
        return min(wanted, alive)

    def about(self) -> dict[str, Any]:
        """Ray's version, and where each worker ran."""
        nodes = [{"worker": member.place, **msgspec.to_builtins(member.about)} for member in self._members]
        return {"kind": "ray", "ray": self._ray.__version__, "workers": len(self._members), "nodes": nodes}

    def run(self, jobs: Sequence[Job], on_tick: OnTick, look: Look, measure_at: MeasureAt = never) -> Outcome:
        """Runs one repeat (see `loadgen.fleet.Fleet.run`). Request lines go where the jobs say, in files that bear the
        names of the nodes."""
        taken = self._alive()[: len(jobs)]
        if len(taken) < len(jobs):
            raise LoadgenError(f"{len(jobs)} workers are needed, and {len(taken)} are left: {self._epitaphs()}.")
        try:
            self._prepare(taken, jobs)
            offsets = [self._offset(member) for member in taken]
            repeat = _Repeat(self._ray, list(zip(taken, jobs, offsets, strict=True)))
            outcome = repeat.run((on_tick, look, measure_at), self._offset)
            return msgspec.structs.replace(outcome, doubts=tuple(_doubts(taken)))
        except BaseException as error:
            self._each(taken, lambda member: member.actor.end.remote(), _CALL_S)  # they would misunderstand the next
            if isinstance(error, self._ray.exceptions.RayError):
                raise LoadgenError(f"Ray failed in the middle of a repeat: {why_lost(error)}") from error
            raise

    def _prepare(self, taken: Sequence[_Member], jobs: Sequence[Job]) -> None:
        """Makes every worker ready. Raises the error of one that cannot be."""
        names = [lines_name(member.host, job.worker) for member, job in zip(taken, jobs, strict=True)]
        data = [
            msgspec.json.encode(msgspec.structs.replace(job, out=name)) for job, name in zip(jobs, names, strict=True)
        ]
        asked = [member.actor.prepare.remote(one) for member, one in zip(taken, data, strict=True)]
        found = [msgspec.json.decode(one, type=Ready) for one in self._ray.get(asked, timeout=READY_S + _CALL_S)]
        for ready in found:
            if ready.failed is not None:
                kind, text = ready.failed
                raise getattr(errors, kind, LoadgenError)(text)
        check_digests(jobs[0].shape, jobs[0].seed, [ready.digest for ready in found])

    def _offset(self, member: _Member) -> Offset:
        return measured(lambda: int(self._ray.get(member.actor.clock.remote(), timeout=_CALL_S)))

    def _alive(self) -> list[_Member]:
        return [member for member in self._members if member.lost is None]

    def _epitaphs(self) -> str:
        return "; ".join(f"worker {one.place} on {one.host}: {one.lost}" for one in self._members if one.lost)

    def _actor(self, index: int) -> Any:
        return actor(self._ray, self._group, index, Node)

    def _greet(self, handle: Any, seconds: float) -> About:
        """Who is there. Raises UsageError for another version of loadgen, LoadgenError for no loadgen or no answer."""
        try:
            about: About = self._ray.get(handle.about.remote(), timeout=seconds)
        except self._ray.exceptions.RayError as error:
            advice = "Every node needs loadgen[ray], of this version and for this Python; its image is the place."
            raise LoadgenError(f"a worker cannot be started on a node: {why_lost(error)} {advice}") from error
        if about.loadgen != __version__:
            raise UsageError(
                f"node {about.host} has loadgen {about.loadgen}, and this is {__version__}: workers of two versions "
                "do not send the same load. Install one version everywhere."
            )
        return about

    def _revive(self, member: _Member) -> None:
        handle = self._actor(member.place)
        try:
            member.about = self._greet(handle, _REVIVE_S)
        except LoadgenError:
            self._ray.kill(handle)
            return
        member.actor, member.lost = handle, None

    def _each(self, members: Sequence[_Member], call: Callable[[_Member], Any], seconds: float) -> None:
        """Calls something on all of them; one that is gone is passed over."""
        asked = [call(member) for member in members]
        self._ray.wait(asked, num_returns=len(asked), timeout=seconds) if asked else None


def _doubts(taken: Sequence[_Member]) -> Iterator[Doubt]:
    niced = sorted({f"{one.host} ({one.about.nice})" for one in taken if one.about is not None and one.about.nice > 0})
    if niced:
        text = f"Workers on {', '.join(niced)} run with a niceness above 0: whatever else runs there goes before them."
        yield Doubt("niced", f"{text} Start Ray on its nodes with RAY_worker_niceness=0 in the environment.")


class _Repeat:
    """One repeat while it goes on: which batch of which worker is awaited, and what has come."""

    def __init__(self, ray: Any, workers: Sequence[tuple[_Member, Job, Offset]]) -> None:
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

    def run(self, hooks: tuple[OnTick, Look, MeasureAt], offset_of: Callable[[_Member], Offset]) -> Outcome:
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

    def _clock(self, number: int, late_us: float, offset_of: Callable[[_Member], Offset]) -> WorkerClock:
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
