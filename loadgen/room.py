"""Whether this machine has room for a load: open files and ports, before anything is started.

In: cells and what the system allows. Out: `Shortage`s. One that is certain would fail every request beyond the limit
with a ``connect_error``, which is a fact about the client and none about the server.
"""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import msgspec

from loadgen.doctor.limits import RESERVED_FILES
from loadgen.errors import UsageError
from loadgen.fleet import Shard
from loadgen.plan import workers_of
from loadgen.scenario import Cell, Target

_PORTS = Path("/proc/sys/net/ipv4/ip_local_port_range")
_TRACKED = Path("/proc/sys/net/netfilter/nf_conntrack_max")

MORE_FILES = "`nofile` in /etc/security/limits.conf, LimitNOFILE of a service, docker run --ulimit"
MORE_PORTS = (
    "widen them (sysctl net.ipv4.ip_local_port_range='1024 65535'), give the target more endpoints, or send from "
    "several machines (docs/scale.md)."
)


class Room(msgspec.Struct, frozen=True, kw_only=True):
    """What the system allows: open files of a process, ports for connections to one address, connections that the
    firewall keeps track of; None where there is no limit, or nobody says."""

    files: int | None = None
    ports: int | None = None
    tracked: int | None = None


class Shortage(msgspec.Struct, frozen=True):
    """A sentence, and whether it is certain: a closed loop holds its concurrency, an open one may reach its cap."""

    text: str
    certain: bool


def room() -> Room:
    """That of this machine."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    ports, tracked = _numbers(_PORTS), _numbers(_TRACKED)
    return Room(
        files=None if hard == resource.RLIM_INFINITY else hard,
        ports=ports[1] - ports[0] + 1 if len(ports) == 2 else None,
        tracked=tracked[0] if tracked else None,
    )


def shortages(cells: Iterable[Cell], allowed: Room, machines: int = 1) -> list[Shortage]:
    """What is short, each sentence once, where the load is dealt over so many machines; of a load that a cluster
    drives nobody knows here."""
    here = [cell for cell in cells if cell.scenario.load.fleet == "local"]
    found = dict.fromkeys(one for cell in here for one in _of_cell(cell, allowed, machines))
    return list(found)


def refuse(cells: Iterable[Cell], say: Callable[[str], None], shard: Shard | None = None) -> None:
    """Raises UsageError for a load, or this machine's shard of it, that it surely has no room for; of one that it may
    not have, ``say`` is told."""
    found = shortages(cells, room(), shard.of if shard else 1)
    for one in found:
        if one.certain:
            raise UsageError(one.text)
        say(one.text)


def _of_cell(cell: Cell, allowed: Room, machines: int) -> Iterator[Shortage]:
    load = cell.scenario.load
    whole, certain = load.concurrency or load.max_in_flight or 0, load.concurrency is not None
    what = f"load.{'concurrency' if certain else 'max_in_flight'} = {whole}"
    streams, workers = -(-whole // machines), workers_of(load) if machines == 1 else 1
    each = -(-streams // workers) + RESERVED_FILES
    if allowed.files is not None and each > allowed.files:
        enough = -(-streams // max(allowed.files - RESERVED_FILES, 1))
        text = (
            f"{what} takes {each} open files in each of {_counted(workers)}, and a process may have {allowed.files} "
            f"here: set load.workers: {enough}, or raise the limit ({MORE_FILES})."
        )
        yield Shortage(text, certain)
    for name, target in cell.scenario.targets.items():
        if allowed.ports is not None:
            ports = allowed.ports * _addresses(target)
            if streams > ports:
                text = f"{what} takes more than the {ports} ports that this machine has for connections to {name}: "
                yield Shortage(text + MORE_PORTS, certain)
            elif streams > ports // 2:
                text = (
                    f"{what} takes more than half of the {ports} ports that this machine has for connections to "
                    f"{name}. Linux hands out one half quickly, and searches through it for each of the other: "
                    "connections then take milliseconds of this machine each. "
                )
                yield Shortage(text + MORE_PORTS[0].upper() + MORE_PORTS[1:], False)
    if allowed.tracked is not None and streams > allowed.tracked:
        text = (
            f"{what} is more than the {allowed.tracked} connections that the firewall of this machine keeps track of: "
            "raise net.netfilter.nf_conntrack_max, or take the server's address out of tracking."
        )
        yield Shortage(text, False)


def _counted(workers: int) -> str:
    """``1 worker``, ``2 workers``."""
    return "1 worker" if workers == 1 else f"{workers} workers"


def _addresses(target: Target) -> int:
    """How many addresses its connections go to; a Unix socket needs no ports, and counts as many."""
    known = set(target.urls)
    return 1 << 30 if any(url.startswith("unix:") for url in known) else max(len(known), 1)


def _numbers(path: Path) -> list[int]:
    try:
        return [int(word) for word in path.read_text().split()]
    except (OSError, ValueError):
        return []
