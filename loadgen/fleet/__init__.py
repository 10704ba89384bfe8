"""Where workers run: as processes of this machine (`local`), or one on each node of a Ray cluster (`ray`).

In: jobs (one a worker) for a repeat. Out: an `Outcome`; the request lines are in the attempt's folder by then. Whatever
the fleet, a worker is the same process (``loadgen.drive.worker``), which takes the sessions whose number modulo N is
its own; the shares are proved to add up to the whole schedule before anything is sent, and all workers start at one
moment. ``load.fleet`` names a file of this folder.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, Literal, Protocol, Self

import msgspec

from loadgen import errors
from loadgen.drive.job import Job, Shape
from loadgen.drive.schedule import digest
from loadgen.drive.tally import Audit, Tick
from loadgen.fleet.clocks import WorkerClock
from loadgen.histogram import Interval
from loadgen.summary import Doubt

Stop = Literal["drain", "now"]
OnTick = Callable[[Tick], None]
Look = Callable[[], Stop | None]
MeasureAt = Callable[[], int | None]

READY_S = 120.0
"""How long a worker may take to make itself ready for a repeat."""
LOOK_S = 0.1


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a repeat left besides its records. ``lost`` names workers that died; ``start_ns`` is monotonic (of this
    machine), ``started_at`` the same moment in seconds since the epoch. ``clocks`` are those of workers elsewhere;
    ``intervals`` the latencies over time as such workers counted them, None where the records are to be counted.
    ``share`` is (i, N) where this is what share i of N left, and the others are elsewhere. ``doubts`` are what
    the places of the workers have against them. ``far`` is True where what this machine took says nothing of them."""

    start_ns: int
    started_at: float
    audits: tuple[Audit, ...]
    lost: tuple[str, ...] = ()
    clocks: tuple[WorkerClock, ...] = ()
    intervals: Iterable[Interval] | None = None
    share: tuple[int, int] = (0, 1)
    doubts: tuple[Doubt, ...] = ()
    far: bool = False

    @property
    def skew_s(self) -> float | None:
        """The most by which two workers can have started apart; None where all read one clock, or nobody knows."""
        errors_us = [clock.error_us for clock in self.clocks]
        if not self.clocks or None in errors_us:
            return None
        worst = sorted(((clock.error_us or 0.0) + clock.late_us for clock in self.clocks), reverse=True)
        return sum(worst[:2]) / 1e6 if len(worst) > 1 else 0.0


class Fleet(Protocol):
    """Workers that are started once, given one job after the other, and stopped with the run (a context manager)."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def at_hand(self, wanted: int) -> int:
        """How many workers the next repeat can have, at most ``wanted``. Raises LoadgenError if there is none."""

    def about(self) -> dict[str, Any]:
        """What the run keeps of where its workers ran."""

    def run(self, jobs: Sequence[Job], on_tick: OnTick, look: Look, measure_at: MeasureAt = ...) -> Outcome:
        """Runs one repeat and returns when it is over.

        ``look()`` is called some ten times a second and says whether to stop; ``measure_at()`` likewise, and gives the
        end (monotonic ns) of a warm-up whose length is not fixed, once it is known. Raises the worker's own error
        (TargetError, UsageError ...) if one could not make itself ready; LoadgenError if one died before it was, or if
        the schedules do not add up.
        """


class Shard(msgspec.Struct, frozen=True, kw_only=True):
    """Share ``index`` (from 0) of ``of``. ``start_at`` is the start of the first repeat, seconds since the epoch."""

    index: int
    of: int
    start_at: float


class Elsewhere(msgspec.Struct, frozen=True, kw_only=True):
    """What a command line says of other machines: the ``address`` of a Ray cluster (None: as Ray finds it), or which
    share of the load is this machine's."""

    address: str | None = None
    shard: Shard | None = None


def open_fleet(kinds: Collection[str], workers: int, elsewhere: Elsewhere | None = None) -> Fleet:
    """The fleet that ``load.fleet`` names, with so many workers; or the one worker of a shard.

    Raises UsageError where cells name different ones, and whatever a cluster has against it.
    """
    elsewhere = elsewhere or Elsewhere()
    address = elsewhere.address
    if len(kinds) > 1:
        raise errors.UsageError(f"load.fleet: {' and '.join(sorted(kinds))} in one run; one fleet drives all cells.")
    if "ray" in kinds:
        from loadgen.fleet import ray

        return ray.Fleet(workers, address)
    if address is not None:
        raise errors.UsageError(
            f"--address {address}: is that of a Ray cluster, and means nothing without --fleet ray."
        )
    if elsewhere.shard is not None:
        from loadgen.fleet import shard

        return shard.Fleet(elsewhere.shard)
    from loadgen.fleet import local

    return local.Fleet(workers)


def never() -> None:
    """A warm-up whose length is fixed needs no word of its end."""


def check_digests(shape: Shape, seed: int, found: Sequence[int]) -> None:
    """Raises LoadgenError unless what the workers have made of their jobs is the schedule of one process."""
    whole = digest(shape, seed, 0, 1)
    if sum(found) % (1 << 64) != whole:
        raise errors.LoadgenError(
            f"the schedules of {len(found)} workers do not add up to the whole: {sum(found) % (1 << 64):x} is not "
            f"{whole:x}. Workers of different versions of loadgen do that; otherwise it is a bug, please report it."
        )
