"""The flags of ``run`` that say where its workers are: here, on a Ray cluster, or one here and the rest anywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from loadgen.errors import UsageError

if TYPE_CHECKING:
    from loadgen.fleet import Elsewhere

FleetKind = Annotated[str | None, typer.Option("--fleet", help="Where workers run: local, or ray (one on each node).")]
Workers = Annotated[int | None, typer.Option("--workers", min=1, help="How many workers drive the load.")]
Address = Annotated[
    str | None, typer.Option("--address", help="With --fleet ray: the cluster's (default: $RAY_ADDRESS).")
]
Share = Annotated[
    str | None, typer.Option("--shard", metavar="I/N", help="Be worker I of N; the others run for themselves.")
]
StartAt = Annotated[
    str | None, typer.Option("--start-at", metavar="TIME", help="With --shard: when all of them begin.")
]


def elsewhere(address: str | None, share: str | None, start_at: str | None) -> Elsewhere:
    """What the flags say of other machines. Raises UsageError."""
    from loadgen.fleet import Elsewhere
    from loadgen.fleet.shard import parse

    if share is None and start_at is not None:
        raise UsageError(f"--start-at {start_at}: belongs to --shard I/N.")
    return Elsewhere(address=address, shard=None if share is None else parse(share, start_at))


def settings(kind: str | None, workers: int | None, place: Elsewhere, resume: str | None) -> list[str]:
    """The same as settings of the scenario. Raises UsageError for what does not go with a shard."""
    if place.shard is not None:
        for flag, value in (("--workers", workers), ("--resume", resume)):
            if value is not None:
                raise UsageError(f"{flag} {value}: does not go with --shard, whose N workers begin by one timetable.")
        workers = place.shard.of
    words = {"load.fleet": kind, "load.workers": workers}
    return [f"{word}={value}" for word, value in words.items() if value is not None]
