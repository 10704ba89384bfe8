"""Which processes belong to a server, and how to signal them without ever hitting another's.

A pid alone names nobody: it is reused. A process is its pid and its start time (`ProcessId`), and every signal here
goes through that check. A server's processes are found in four ways, because each alone loses some: by descent (a
child of a known process), by session and group (children whose parent died), by what was seen earlier (children that
left the session while their parent lived), and by a cookie in the environment that they inherited (children that did
all of it between two looks). An engine that overwrites its own environment loses the cookie, and only that.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec
import psutil

COOKIE = "LOADGEN_SERVER"
"""Name of the variable that marks every process of a server."""

_PROC = Path("/proc")


class ProcessId(msgspec.Struct, frozen=True):
    """One process, and no later one with the same pid.

    ``ticks`` is its start in clock ticks since boot, as Linux gives it (None elsewhere); ``created`` its start in
    seconds since the epoch, as psutil gives it. Ticks decide where both sides have them: ``created`` moves when the
    system's clock is set.
    """

    pid: int
    ticks: int | None
    created: float

    def to_json(self) -> dict[str, Any]:
        """As it stands in server.json."""
        return {"pid": self.pid, "start_ticks": self.ticks, "create_time": self.created}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> ProcessId:
        """The process of an entry of server.json. Raises KeyError where it is none."""
        return cls(int(value["pid"]), value["start_ticks"], float(value["create_time"]))

    def is_(self, row: Row | None) -> bool:
        """True if ``row`` is this very process, dead but not yet reaped included."""
        if row is None or row.pid != self.pid:
            return False
        if self.ticks is not None and row.ticks is not None:
            return self.ticks == row.ticks
        return row.created is not None and abs(row.created - self.created) < 0.05

    def alive(self) -> bool:
        """True if it runs; a process that is dead and not yet reaped holds nothing any more, and does not count."""
        row = row_of(self.pid)
        return row is not None and not row.dead and self.is_(row)


class Row(msgspec.Struct, frozen=True):
    """A line of the process table. ``dead`` means exited and not yet reaped."""

    pid: int
    parent: int
    group: int
    session: int
    ticks: int | None
    created: float | None
    dead: bool


def row_of(pid: int) -> Row | None:
    """The process table's line for ``pid``, None if there is no such process."""
    if sys.platform == "linux":
        try:
            stat = (_PROC / str(pid) / "stat").read_bytes()
        except OSError:
            return None
        fields = stat[stat.rfind(b")") + 2 :].split()  # the name before it may hold spaces and brackets
        parent, group, session = (int(field) for field in fields[1:4])
        dead = fields[0] in (b"Z", b"X") and int(fields[17]) <= 1  # its other threads may run on, and hold its memory
        return Row(pid, parent, group, session, int(fields[19]), None, dead)
    try:
        process = psutil.Process(pid)
        dead = process.status() == psutil.STATUS_ZOMBIE
        return Row(pid, process.ppid(), os.getpgid(pid), os.getsid(pid), None, process.create_time(), dead)
    except (psutil.Error, OSError):
        return None


def table() -> dict[int, Row]:
    """The whole process table, by pid."""
    rows = (row_of(pid) for pid in psutil.pids())
    return {row.pid: row for row in rows if row is not None}


def identify(pid: int) -> ProcessId | None:
    """The identity of the process that has this pid now, None if none has."""
    row = row_of(pid)
    if row is None:
        return None
    try:
        created = psutil.Process(pid).create_time()
    except psutil.Error:
        return None
    return ProcessId(pid, row.ticks, created)


def this_process() -> ProcessId:
    """Our own identity: what run.json and server.json keep, so that a later run can tell whether we still live."""
    found = identify(os.getpid())
    assert found is not None  # the asking process exists
    return found


def boot_id() -> str:
    """The name of this boot of the machine: after the next one no recorded process lives."""
    try:
        return (_PROC / "sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return f"boot-{psutil.boot_time():.0f}"


def send(process: ProcessId, number: signal.Signals) -> bool:
    """Signal this process and no other; False if it is gone or is not ours to signal."""
    if sys.platform == "linux":
        try:
            handle = os.pidfd_open(process.pid)  # from here on the number cannot come to mean another process
        except OSError:
            return False
        try:
            if not process.is_(row_of(process.pid)):
                return False
            signal.pidfd_send_signal(handle, number)
            return True
        except OSError:
            return False
        finally:
            os.close(handle)
    try:
        found = psutil.Process(process.pid)
        if abs(found.create_time() - process.created) > 0.05:
            return False
        found.send_signal(number)
        return True
    except (psutil.Error, OSError):
        return False


class Tree:
    """The processes of one server, remembered as they are seen. ``leader`` is the process that was started."""

    def __init__(self, leader: ProcessId | None, cookie: str, known: Iterable[ProcessId] = ()) -> None:
        self.leader = leader
        self.cookie = cookie
        self.known = {process.pid: process for process in known}
        if leader is not None:
            self.known[leader.pid] = leader

    def refresh(self, *, thorough: bool = False) -> None:
        """Look for new members; ``thorough`` also reads every process's environment for the cookie."""
        rows = table()
        members = {pid for pid, process in tuple(self.known.items()) if process.is_(rows.get(pid))}
        leader = self.leader.pid if self.leader is not None and self.leader.is_(rows.get(self.leader.pid)) else None
        if leader is not None:  # while the leader is not reaped, its number cannot be another's session or group
            members |= {row.pid for row in rows.values() if leader in (row.session, row.group)}
        if thorough:
            members |= {pid for pid in rows if self._has_cookie(pid)}
        add_descendants(members, rows)
        for pid in members - {os.getpid(), 1}:
            if pid not in self.known or not self.known[pid].is_(rows.get(pid)):
                found = identify(pid)
                if found is not None:
                    self.known[pid] = found

    def alive(self) -> list[ProcessId]:
        """The members that run, in the order of their pids."""
        known = sorted(self.known.values(), key=lambda process: process.pid)
        return [process for process in known if process.alive()]

    def signal(self, number: signal.Signals) -> list[ProcessId]:
        """Signal every member that runs, the leader's group as a whole; returns the members it was meant for."""
        meant = self.alive()
        grouped: set[int] = set()
        if self.leader is not None and self.leader.is_(row_of(self.leader.pid)):
            rows = {process.pid: row_of(process.pid) for process in meant}
            grouped = {pid for pid, row in rows.items() if row is not None and row.group == self.leader.pid}
            if grouped:
                try:
                    os.killpg(self.leader.pid, number)  # at once, so that no child can be forked in between
                except OSError:
                    grouped = set()
        for process in meant:
            if process.pid not in grouped:
                send(process, number)
        return meant

    def _has_cookie(self, pid: int) -> bool:
        mark = f"{COOKIE}={self.cookie}"
        if sys.platform == "linux":
            try:
                return mark.encode() in (_PROC / str(pid) / "environ").read_bytes().split(b"\0")
            except OSError:
                return False
        try:
            return psutil.Process(pid).environ().get(COOKIE) == self.cookie
        except (psutil.Error, OSError):
            return False


def add_descendants(members: set[int], rows: dict[int, Row]) -> None:
    """Add to ``members`` all that they have started, and what those have."""
    children: dict[int, list[int]] = {}
    for row in rows.values():
        children.setdefault(row.parent, []).append(row.pid)
    waiting = list(members)
    while waiting:
        new = [pid for pid in children.get(waiting.pop(), ()) if pid not in members]
        members.update(new)
        waiting += new


class Ended(msgspec.Struct, frozen=True):
    """How a tree ended. ``killed`` had to be killed, ``left`` lives in spite of it."""

    killed: tuple[ProcessId, ...]
    left: tuple[ProcessId, ...]


def end(tree: Tree, grace_s: float, *, reap: Callable[[], object] = lambda: None) -> Ended:
    """SIGTERM to all of the tree, ``grace_s`` to obey, SIGKILL to what is left, again for 5 s as long as more appears.

    ``reap`` is called while waiting, for the parent of a process must collect it.
    """
    tree.refresh(thorough=True)
    tree.signal(signal.SIGTERM)
    _gone_within(tree, grace_s, reap)
    killed: dict[int, ProcessId] = {}
    until = time.monotonic() + 5.0
    while True:
        tree.refresh(thorough=True)
        left = tree.alive()
        if not left or time.monotonic() > until:
            return Ended(tuple(killed.values()), tuple(left))
        killed.update((process.pid, process) for process in tree.signal(signal.SIGKILL))
        _gone_within(tree, 0.5, reap)


def _gone_within(tree: Tree, seconds: float, reap: Callable[[], object]) -> bool:
    until = time.monotonic() + seconds
    while True:
        reap()
        if not tree.alive():
            return True
        if time.monotonic() >= until:
            return False
        time.sleep(0.02)
