"""CPU time and resident memory of the server's processes and of our own, as the kernel counts them.

In: the processes that a server was known to have when it was ready. Out: a `Usage` of the server with all that it has
started since, and one of the client: this process and what it started, servers left out.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable

import psutil

from loadgen.launch.processes import ProcessId, add_descendants, table
from loadgen.telemetry.reading import Usage

_LOOK_EVERY = 5


class Group:
    """Processes whose use is counted together. The CPU time of one that has ended stays counted."""

    def __init__(self) -> None:
        self._members: dict[int, psutil.Process] = {}
        self._cpu: dict[tuple[int, float], float] = {}
        self._before: dict[tuple[int, float], float] = {}

    @property
    def pids(self) -> frozenset[int]:
        """Of those that were there at the last look."""
        return frozenset(self._members)

    def set(self, pids: Collection[int]) -> None:
        """The members are these now."""
        known = {pid: found for pid, found in self._members.items() if pid in pids and found.is_running()}
        self._members = known | {pid: made for pid in pids if pid not in known and (made := _process(pid)) is not None}

    def usage(self) -> Usage | None:
        """Their use until now, None where none of them lives."""
        rss = [held for one in self._members.values() if (held := self._count(one)) is not None]
        used = sum(self._cpu.values()) - sum(self._before.values())
        return Usage(used, float(sum(rss))) if rss else None

    def _count(self, process: psutil.Process) -> int | None:
        try:
            with process.oneshot():
                times, key = process.cpu_times(), (process.pid, process.create_time())
                rss = process.memory_info().rss
        except psutil.Error:
            return None
        self._cpu[key] = times.user + times.system
        self._before.setdefault(key, self._cpu[key])
        return int(rss)


class Processes:
    """The server's processes and ours. ``server`` empty: it runs elsewhere or in a container, and is not known.
    ``others`` are those of other servers of the run, which are nobody's here."""

    def __init__(self, server: Iterable[ProcessId] = (), others: Iterable[ProcessId] = ()) -> None:
        self._roots, self._others = tuple(server), tuple(others)
        self._server, self._client = Group(), Group()
        self._ours: frozenset[int] = frozenset()
        self._looks = 0

    def read(self) -> tuple[Usage | None, Usage | None]:
        """The server's use and the client's. Every fifth time it is looked for new processes first."""
        if self._looks % _LOOK_EVERY == 0:
            self._look()
        self._looks += 1
        return self._server.usage(), self._client.usage()

    @property
    def server(self) -> frozenset[int]:
        """Pids of the server."""
        return self._server.pids

    @property
    def ours(self) -> frozenset[int]:
        """Pids of all servers of the run, and our own."""
        return self._ours

    def _look(self) -> None:
        rows = table()
        server = {one.pid for one in self._roots if one.is_(rows.get(one.pid))}
        add_descendants(server, rows)
        others = {one.pid for one in self._others if one.is_(rows.get(one.pid))}
        add_descendants(others, rows)
        client = {os.getpid()}
        add_descendants(client, rows)
        self._server.set(server)
        self._client.set(client - server - others)
        self._ours = frozenset(server | others | client)


def _process(pid: int) -> psutil.Process | None:
    try:
        return psutil.Process(pid)
    except psutil.Error:
        return None
