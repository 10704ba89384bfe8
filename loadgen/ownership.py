"""Who writes a run: one process at a time, and when that is gone, whoever looks next says so.

In: folders of runs. Out: the same folders, of which run.json tells the truth. A process holds the run that it writes
by a lock on its folder, which the kernel takes back whatever ends the process; run.json names the process besides (pid,
start, boot of the machine), for people and for file systems that know no such lock. A run that says that it is running
and that nobody holds was killed, or its machine went down: it is closed as ``aborted``, with all that it measured.
"""

from __future__ import annotations

import fcntl
import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from loadgen.errors import BusyError, StoreError
from loadgen.launch import ProcessId, boot_id, this_process
from loadgen.store import Run

SILENT_S = 86400.0
"""Nobody can ask another machine for a process. A run of one that wrote nothing for so long has ended."""

_TEMPORARY = re.compile(r"\..+\.\d+")


class _Known(msgspec.Struct):
    """What run.json says of the process; a run that another tool measured has none."""

    status: str = ""
    pid: int | None = None
    pid_started: float = 0.0
    pid_ticks: int | None = None
    boot_id: str = ""
    machine: dict[str, Any] = {}


def this_owner() -> dict[str, Any]:
    """What a run keeps of the process that writes it."""
    own = this_process()
    return {"pid": own.pid, "pid_started": own.created, "pid_ticks": own.ticks, "boot_id": boot_id()}


@contextmanager
def held(run: Run) -> Iterator[None]:
    """The run is this process's to write. Raises BusyError if it is another's, StoreError if its folder is gone."""
    try:
        fd = os.open(run.folder, os.O_RDONLY)
    except OSError as error:
        raise StoreError(f"cannot open {run.folder}: {error.strerror}") from error
    try:
        known = _known(run)
        if not _locked(fd) or (known.pid != os.getpid() and _alive(run, known)):
            who = f"process {known.pid}" if known.pid else "another process"
            raise BusyError(f"{run.id} is being written by {who}; wait for its end, or end that first.")
        yield
    finally:
        os.close(fd)


def close_abandoned(root: Path, say: Callable[[str], None]) -> list[Run]:
    """Closes every run of a store whose process is gone; ``say`` is told of each. A run that cannot be read, or not be
    written any more, is passed over: it is not what was asked for."""
    found = []
    for path in sorted(root.glob("runs/*/*/run.json")):
        run = Run(path.parent)
        try:
            sentence = close_if_abandoned(run)
        except StoreError:
            continue
        if sentence is not None:
            say(f"{run.id}: {sentence}")
            found.append(run)
    return found


def close_if_abandoned(run: Run) -> str | None:
    """Marks a run as aborted if its process is gone, and says so in a sentence; None if there is nothing to say.

    What was measured stays as it is; files that were only half written, and never counted, go. Raises StoreError.
    """
    if not _abandoned(run):
        return None
    try:
        with held(run):
            if not _abandoned(run):  # somebody was faster
                return None
            described = run.read("run.json")
            ended = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(last_written(run)))
            tidy(run)
            whole = sum(repeat.whole() is not None for repeat in run.repeats())
            sentence = (
                f"The process of this run (pid {described['pid']}) ended without a word, at {ended} or later; it was "
                f"killed, or the machine went down. Whole repeats so far {whole}; --resume goes on with them."
            )
            failures = [*described.get("failures", ()), sentence]
            run.write("run.json", {**described, "status": "aborted", "ended": ended, "failures": failures})
            return sentence
    except BusyError:
        return None


def half_written(run: Run) -> list[Path]:
    """Files that were about to be renamed into their place. Whoever holds the run may delete them."""
    return [path for path in run.folder.rglob(".*") if _TEMPORARY.fullmatch(path.name) and path.is_file()]


def tidy(run: Run) -> None:
    """Deletes what whoever wrote the run before had only half written. For whoever holds it."""
    for path in half_written(run):
        path.unlink(missing_ok=True)


def last_written(run: Run) -> float:
    """When anything of a run was written last, in seconds since the epoch."""
    times = [run.folder.stat().st_mtime]
    for path in run.folder.rglob("*"):
        try:
            times.append(path.stat().st_mtime)
        except OSError:  # renamed in the meantime
            continue
    return max(times)


def _abandoned(run: Run) -> bool:
    known = _known(run)
    return known.status == "running" and known.pid is not None and not _alive(run, known)


def _alive(run: Run, known: _Known) -> bool:
    if known.status != "running" or known.pid is None:
        return False
    elsewhere = known.machine.get("host") not in (None, socket.gethostname())
    if known.boot_id and known.boot_id != boot_id():
        return elsewhere and time.time() - last_written(run) < SILENT_S
    return ProcessId(known.pid, known.pid_ticks, known.pid_started).alive()


def _known(run: Run) -> _Known:
    try:
        return msgspec.json.decode((run.folder / "run.json").read_bytes(), type=_Known)
    except FileNotFoundError:
        return _Known()
    except (OSError, msgspec.MsgspecError) as error:
        raise StoreError(f"cannot read {run.folder / 'run.json'}: {error}") from error


def _locked(fd: int) -> bool:
    """False if another process has the lock; a file system without locks gives it to everybody."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True
