"""Before a night: what would make its numbers worthless, found in seconds instead of in the morning.

In: the cells that are to be measured, and the store. Out: `Finding`s. A problem stands in the way of any measurement: a
GPU that is not free or is slowed down, a model that is not here, an endpoint that nobody serves, a full disk, a server
of an earlier run that cannot be ended. Servers that a killed run left are ended. Nothing is started or asked anything.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from pathlib import Path

from loadgen.alone import gpus_here, gpus_of
from loadgen.doctor import disks, in_time, left_in, limits, stop, throttle
from loadgen.doctor import is_left as still_up
from loadgen.doctor.finding import Finding, size
from loadgen.doctor.gpus import UNSEEN_BYTES, Gpu
from loadgen.drive.http import Endpoint, parse_endpoint
from loadgen.errors import LoadgenError
from loadgen.scenario import Cell, Loaded, Target
from loadgen.targets import check

LONGEST_S = 60.0
CONNECT_S = 5.0


def examine(loaded: Loaded, cells: Sequence[Cell], store: Path) -> list[Finding]:
    """Problems and warnings, nothing of what is in order, but for servers that were ended. All parts are looked at at
    once, each within a time; leftovers go first, since they hold GPUs."""
    ended = leftovers(store)
    found = in_time(
        {
            "GPUs": lambda: list(gpu_findings(gpus_of(cells, gpus_here()))),
            "clocks": lambda: list(throttle_findings(gpus_of(cells, gpus_here()))),
            "store": lambda: [disks.store(store)],
            "limits": limits.examine,
            "targets": lambda: list(_asked(loaded, cells)),
            "endpoints": lambda: list(endpoint_findings(cells)),
        },
        LONGEST_S,
    )
    return [*ended, *(finding for finding in found if finding.state != "ok")]


def leftovers(store: Path) -> list[Finding]:
    """Servers that outlived their runs: ended, but for those that somebody kept up on purpose."""
    left = left_in(store)
    return [*stop([one for one in left if not one.kept]), *(still_up(one) for one in left if one.kept)]


def other_profile(loaded: Loaded, before: str | None) -> Iterator[Finding]:
    """A problem if this machine has another profile than in the last night (``before``): a GPU that fell off the bus
    must not make a good night of another kind, whose series nobody watches."""
    now = loaded.profile
    if None not in (now, before) and now != before:
        text = f"the last night ran {before!r}, and now {loaded.profile_reason}"
        advice = f"see what became of the machine (`loadgen doctor`), or say which is meant: --profile {now}."
        yield Finding(name="profile", state="problem", text=text, advice=advice)


def gpu_findings(gpus: Sequence[Gpu]) -> Iterator[Finding]:
    """A problem for each GPU that somebody else uses."""
    for gpu in gpus:
        on_it = [f"pid {one.pid} ({one.name or 'not to be seen from here'})" for one in gpu.processes]
        text = f"{gpu.name} ({gpu.uuid}) is not free: {', '.join(on_it)}"
        if not on_it and gpu.memory_used > UNSEEN_BYTES:
            text = f"{gpu.name} ({gpu.uuid}) has {size(gpu.memory_used)} in use by nobody that can be seen from here"
        elif not on_it:
            continue
        advice = "end it, or take other `devices`."
        yield Finding(name=f"GPU {gpu.index}", state="problem", text=text, advice=advice)


def throttle_findings(gpus: Sequence[Gpu]) -> Iterator[Finding]:
    """A problem for each GPU whose clocks are held down."""
    held = throttle.throttled()
    for gpu in gpus:
        if why := held.get(gpu.uuid):
            text = f"{gpu.name} ({gpu.uuid}) runs with clocks held down: {', '.join(why)}"
            advice = "look at its cooling and power: nvidia-smi -q -d PERFORMANCE."
            yield Finding(name=f"GPU {gpu.index}", state="problem", text=text, advice=advice)


def endpoint_findings(cells: Sequence[Cell]) -> Iterator[Finding]:
    """A problem for each endpoint that nothing listens at. (Whether it answers as it must, the run asks first.)"""
    for name, target in _targets(cells).items():
        for url in target.urls:
            try:
                _connect(parse_endpoint(url, target.proxy))
            except (OSError, LoadgenError) as error:
                reason = getattr(error, "strerror", None) or error
                text = f"target {name}: {url} cannot be reached: {reason}"
                advice = "is the server up, and is this its address?"
                yield Finding(name="endpoint", state="problem", text=text, advice=advice)


def _asked(loaded: Loaded, cells: Sequence[Cell]) -> Iterator[Finding]:
    """A problem if a model is missing, or something else that the targets are started or asked with."""
    try:
        check(loaded, list(cells))
    except LoadgenError as error:
        yield Finding(name="target", state="problem", text=str(error))


def _connect(endpoint: Endpoint) -> None:
    if endpoint.unix is not None:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(CONNECT_S)
            sock.connect(endpoint.unix)
        return
    socket.create_connection(endpoint.proxy or (endpoint.host, endpoint.port), CONNECT_S).close()


def _targets(cells: Sequence[Cell]) -> dict[str, Target]:
    """Every target of the cells, once; they may differ from cell to cell in their options."""
    found: dict[str, Target] = {}
    for cell in cells:
        for name, target in cell.scenario.targets.items():
            known = found.setdefault(name, target)
            if known is not target and (known.urls, known.devices) != (target.urls, target.devices):
                found[f"{name} in {cell.id}"] = target
    return found
