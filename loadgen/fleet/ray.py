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

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from loadgen import __version__, errors
from loadgen.drive.job import Job
from loadgen.errors import LoadgenError, TargetError, UsageError
from loadgen.fleet import READY_S, Look, MeasureAt, OnTick, Outcome, check_digests, never
from loadgen.fleet.clocks import Offset, measured
from loadgen.fleet.cluster import actor, connect, leave, nodes_for_workers, place, why_lost
from loadgen.fleet.node import About, Node, Ready
from loadgen.fleet.ray_repeat import Member, Repeat
from loadgen.record import lines_name
from loadgen.summary import Doubt

_CALL_S = 30.0
_REVIVE_S = 20.0


class Fleet:
    """Workers on nodes of their own. Use it as a context manager; leaving it ends them and leaves the cluster."""

    def __init__(self, workers: int, address: str | None = None) -> None:
        self._ray = connect(address)
        self._group: Any = None
        try:
            self._group = place(self._ray, workers)
            self._members = [Member(index, self._actor(index)) for index in range(workers)]
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
        self._find_lost()
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
            repeat = Repeat(self._ray, list(zip(taken, jobs, offsets, strict=True)))
            outcome = repeat.run((on_tick, look, measure_at), self._offset)
            return msgspec.structs.replace(outcome, doubts=tuple(_doubts(taken)))
        except BaseException as error:
            self._each(taken, lambda member: member.actor.end.remote(), _CALL_S)  # they would misunderstand the next
            if isinstance(error, self._ray.exceptions.RayError):  # one was lost right before the start
                self._find_lost()
                raise TargetError(f"the workers on the Ray cluster could not begin: {why_lost(error)}") from error
            raise

    def _prepare(self, taken: Sequence[Member], jobs: Sequence[Job]) -> None:
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

    def _offset(self, member: Member) -> Offset:
        return measured(lambda: int(self._ray.get(member.actor.clock.remote(), timeout=_CALL_S)))

    def _find_lost(self) -> None:
        """Asks everybody for a sign of life."""
        asked = [(member, member.actor.clock.remote()) for member in self._alive()]
        for member, ref in asked:
            try:
                self._ray.get(ref, timeout=_CALL_S)
            except self._ray.exceptions.RayError as error:
                member.lost = why_lost(error)

    def _alive(self) -> list[Member]:
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
            raise LoadgenError(f"a worker cannot be started on a node: {why_lost(error)}. {advice}") from error
        if about.loadgen != __version__:
            raise UsageError(
                f"node {about.host} has loadgen {about.loadgen}, and this is {__version__}: workers of two versions "
                "do not send the same load. Install one version everywhere."
            )
        return about

    def _revive(self, member: Member) -> None:
        handle = self._actor(member.place)
        try:
            member.about = self._greet(handle, _REVIVE_S)
        except LoadgenError:
            self._ray.kill(handle)
            return
        member.actor, member.lost = handle, None

    def _each(self, members: Sequence[Member], call: Callable[[Member], Any], seconds: float) -> None:
        """Calls something on all of them; one that is gone is passed over."""
        asked = [call(member) for member in members]
        if asked:
            self._ray.wait(asked, num_returns=len(asked), timeout=seconds)


def _doubts(taken: Sequence[Member]) -> Iterator[Doubt]:
    niced = sorted({f"{one.host} ({one.about.nice})" for one in taken if one.about is not None and one.about.nice > 0})
    if niced:
        text = f"Workers on {', '.join(niced)} run with a niceness above 0: whatever else runs there goes before them."
        yield Doubt("niced", f"{text} Start Ray on its nodes with RAY_worker_niceness=0 in the environment.")
