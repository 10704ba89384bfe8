"""What is sent when: one interface over the closed and the open loop, dealt out over the workers by session.

Worker i of N takes the sessions whose number modulo N is i, so the union over the workers is exactly the schedule of
one process. `digest` shows it: a sum over the sessions, so that the digests of the shares add up to that of the whole.

In: the shape of the load. Out: `Send` after `Send`, each with the absolute time (ns) at which it is due.
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
from collections.abc import Iterator
from typing import NamedTuple, Protocol

from loadgen.arrival import Arrival, offsets
from loadgen.drive.job import Job, Shape

_DIGEST_SENDS = 100_000
"""Sends that a digest covers: enough to find a different schedule, at 0.1 s."""

PAUSE_NS = 100_000_000
"""After a failure a slot of a closed loop sends again no sooner than this after its last send."""


class Send(NamedTuple):
    """One request to send: its session, when it is due (ns, monotonic), and the slot that it belongs to (or -1).

    Conversations have turns, and then ``seq`` numbers the requests; else there is one to a session.
    """

    due: int
    session: int
    slot: int
    turn: int = 0
    seq: int | None = None


class Schedule(Protocol):
    """A stream of sends in the order in which they are due."""

    @property
    def goes_on(self) -> bool:
        """True if a reply may bring a send when there is none now."""

    def peek(self) -> int | None:
        """When the next send is due (ns), None while there is none."""

    def take(self) -> Send:
        """The next send."""

    def ended(self, slot: int, at: int) -> None:
        """The request of a slot ended at ``at`` (ns): in a closed loop its slot is free from then on."""


class ClosedLoop:
    """Each slot sends as soon as its previous reply has ended. Slots are dealt over the workers like sessions."""

    goes_on = True

    def __init__(self, job: Job, start: int) -> None:
        shape = job.shape
        slots = shape.concurrency or 0
        step = shape.ramp_s * 1e9 / slots
        self._due = [(start + int(slot * step), slot) for slot in range(job.worker, slots, job.workers)]
        heapq.heapify(self._due)
        self._sessions = itertools.count(job.worker, job.workers)

    def peek(self) -> int | None:
        return self._due[0][0] if self._due else None

    def take(self) -> Send:
        due, slot = heapq.heappop(self._due)
        return Send(due, next(self._sessions), slot)

    def ended(self, slot: int, at: int) -> None:
        heapq.heappush(self._due, (at, slot))


class OpenLoop:
    """Sends at the offsets of an arrival process, whether or not replies come back."""

    goes_on = False

    def __init__(self, job: Job, start: int) -> None:
        assert job.shape.arrival is not None
        self._start = start
        self._offsets = share(job.shape.arrival, job.seed, job.worker, job.workers)
        self._next = next(self._offsets, None)

    def peek(self) -> int | None:
        return None if self._next is None else self._start + int(self._next[1] * 1e9)

    def take(self) -> Send:
        assert self._next is not None
        session, offset = self._next
        self._next = next(self._offsets, None)
        return Send(self._start + int(offset * 1e9), session, -1)

    def ended(self, slot: int, at: int) -> None:
        """Nothing: an open loop does not wait for replies."""


def make_schedule(job: Job, start: int) -> Schedule:
    """The schedule of a job whose repeat starts at ``start`` (ns, monotonic)."""
    return ClosedLoop(job, start) if job.shape.arrival is None else OpenLoop(job, start)


def share(arrival: Arrival, seed: int, worker: int, workers: int) -> Iterator[tuple[int, float]]:
    """(session, offset in seconds) of a worker's share of an open loop."""
    return itertools.islice(enumerate(offsets(arrival, seed)), worker, None, workers)


def digest(shape: Shape, seed: int, worker: int, workers: int) -> int:
    """A number for a worker's share of the schedule; those of all workers add up (modulo 2**64) to that of the whole.

    It covers the sends until the end of the window, at most the first 100,000; a closed loop has only its slots.
    """
    if shape.arrival is None:
        items: Iterator[tuple[int, float]] = ((slot, 0.0) for slot in range(worker, shape.concurrency or 0, workers))
    else:
        end = (shape.warmup_s or 0.0) + (shape.window_s or float("inf"))
        share_ = share(shape.arrival, seed, worker, workers)
        items = itertools.takewhile(lambda item: item[1] < end and item[0] < _DIGEST_SENDS, share_)
    total = 0
    for session, offset in items:
        line = f"{seed}:{session}:{round(offset * 1e9)}".encode()
        total += int.from_bytes(hashlib.blake2b(line, digest_size=8).digest(), "big")
    return total % (1 << 64)


def part_of(total: int | None, job: Job) -> int | None:
    """This worker's part of a count that is split over all workers."""
    return None if total is None else len(range(job.worker, total, job.workers))


def quota_of(job: Job) -> int | None:
    """This worker's part of the measured requests. In a closed loop they are dealt to the workers that have a slot."""
    total, workers = job.shape.requests, job.workers
    if job.shape.arrival is None:
        workers = min(workers, job.shape.concurrency or workers)
    if total is None:
        return None
    return len(range(job.worker, total, workers)) if job.worker < workers else 0
