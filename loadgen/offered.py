"""The load that a scenario offers, in the driver's form: when what is sent, and what ends it.

In: the words of a load, and those of its workload where that is a trace with times of its own. Out: a `Shape`.
"""

from __future__ import annotations

import os
from pathlib import Path

from loadgen.arrival import Arrival
from loadgen.drive.job import Shape
from loadgen.errors import UsageError
from loadgen.scenario.model import Load, Workload
from loadgen.workloads import Context, trace


def shape_of(load: Load, workload: Workload | None = None, folder: str | Path = ".") -> Shape:
    """The driver's form of a scenario's load. ``folder`` is the scenario's, for the paths of files that hold times.

    Raises UsageError for a file that cannot be used.
    """
    burst = load.kind == "burst"
    return Shape(
        concurrency=load.concurrency,
        ramp_s=load.ramp_s,
        arrival=arrival_of(load, workload, Path(folder)),
        warmup_s=None if load.warmup_s == "auto" else 0.0 if burst else load.warmup_s,
        warmup_tokens=load.warmup_tokens,
        window_s=load.window_s,
        requests=load.requests,
        drain_s=load.timeout_s if burst or load.requests else load.drain_s,
        max_in_flight=load.max_in_flight,
        max_rps=load.max_rps,
        timeout_s=load.timeout_s,
        stall_timeout_s=load.stall_timeout_s,
        connect_timeout_s=load.connect_timeout_s,
        max_event_bytes=load.max_event_bytes,
    )


def arrival_of(load: Load, workload: Workload | None, folder: Path) -> Arrival | None:
    """The arrival process of an open loop, None for a closed one. Raises UsageError for a file of bad times."""
    match load.kind:
        case None:
            return None
        case "burst":
            return Arrival(kind="burst", count=load.burst or 0)
        case "piecewise":
            return Arrival(kind="piecewise", rates=tuple(load.rates or ()))
        case "timestamps":
            return Arrival(
                kind="timestamps", timestamps=_timestamps(folder / Path(os.path.expanduser(load.timestamps or "")))
            )
        case "trace":
            assert workload is not None, "a trace's times are in the workload"
            context = Context(seed=0, ask_tok=0, folder=str(folder))
            return Arrival(kind="timestamps", timestamps=tuple(trace.offsets(workload.settings, context)))
        case kind:
            return Arrival(kind=kind, rate_rps=load.rate_rps or 0.0, cv=load.burstiness)


def _timestamps(path: Path) -> tuple[float, ...]:
    try:
        with path.open(encoding="utf-8") as file:
            lines = [(number, line.strip()) for number, line in enumerate(file, 1)]
    except OSError as error:
        raise UsageError(f"load.timestamps: cannot read {path}: {error.strerror}") from error
    values = []
    for number, line in lines:
        if line:
            try:
                values.append(float(line))
            except ValueError:
                raise UsageError(f"{path}:{number}: {line[:40]!r} is no offset in seconds") from None
    if not values:
        raise UsageError(f"load.timestamps: {path} holds no offsets; write one number of seconds a line.")
    return tuple(values)
