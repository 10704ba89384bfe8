"""Who may measure now: a lock for each nightly's name, each GPU and the machine's cores, so that no two measurements
disturb each other.

In: what is wanted. Out: a time in which this process alone has it. The kernel holds the locks (flock) and releases them
with the process, however that ends; the file beside a lock only says for people who has it. Locks of names lie in the
store; those of GPUs and cores lie in one place of the machine, since two stores may want one GPU.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import psutil

from loadgen.errors import BusyError, LoadgenError, StoreError
from loadgen.store import make_folder, read_json, write_json

if TYPE_CHECKING:
    from filelock import BaseFileLock

LOOK_EVERY_S = 0.5
SHARED = "/run/lock/loadgen"
"""Where the locks of a machine lie for all of its users, once its administrator has made this folder (root's, 1777; see
scripts/loadgen-locks.conf). Nobody has to name it, so that nobody can forget to."""

PLACES = ("/run/lock", "/tmp")
"""Where this user's own locks of GPUs lie otherwise: the first that can be written, whatever TMPDIR says."""

CORES = "cores"
"""What servers without GPUs must have alone."""


class Wanted(msgspec.Struct, frozen=True):
    """Something that only one process may have: its lock's file, what it is for people (``GPU GPU-5f1c``), and the
    file's mode."""

    path: Path
    what: str
    mode: int = 0o600


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """Who has a lock: a process, and what for. ``since`` is in UTC."""

    pid: int
    started: float
    host: str
    purpose: str
    since: str

    def sentence(self) -> str:
        """For the user who waits for it."""
        return f"{self.purpose} (pid {self.pid} on {self.host}, since {self.since})"


def name_lock(store: Path, name: str) -> Wanted:
    """The lock of a nightly's name in a store. Raises StoreError."""
    return Wanted(make_folder(store / "locks") / f"{name}.lock", f"the nightly {name}")


def machine_locks(names: Sequence[str]) -> list[Wanted]:
    """The locks of these GPUs, by UUID, or of the machine's `CORES`. Raises StoreError.

    All users of the machine share them by `SHARED` where that is there, or by ``$LOADGEN_LOCKS``, a folder that all of
    them can write. Otherwise they are this user's.
    """
    if not names:
        return []
    shared = _shared_folder()
    folder, mode = (shared, 0o666) if shared is not None else (_own_folder(), 0o600)
    return [Wanted(folder / f"{name}.lock", _called(name), mode) for name in sorted(set(names))]


@contextmanager
def held(
    wanted: Sequence[Wanted], purpose: str, wait_s: float, say: Callable[[str], None]
) -> Iterator[Callable[[str], None]]:
    """Has all of these, in their order (the same for everybody, so that no two wait for each other). ``wait_s`` is how
    long it waits for all of them together; ``say`` is told whom it waits for. Gives a function by which the holder says
    later, and better, what for. Raises BusyError."""
    until = time.monotonic() + wait_s
    holder = _this(purpose)

    def tell(purpose: str) -> None:
        for one in wanted:
            _write(one, msgspec.structs.replace(holder, purpose=purpose))

    with ExitStack() as stack:
        for one in wanted:
            lock = _lock(one)
            _acquire(lock, one, until, say)
            stack.callback(lock.release)
            stack.callback(_clear_away, one)
            _write(one, holder)
        yield tell


def _lock(one: Wanted) -> BaseFileLock:
    from filelock import FileLock

    return FileLock(one.path, mode=one.mode)


def _acquire(lock: BaseFileLock, one: Wanted, until: float, say: Callable[[str], None]) -> None:
    from filelock import Timeout

    try:
        try:
            lock.acquire(timeout=0)
            return
        except Timeout:
            if time.monotonic() < until:
                say(f"waiting for {one.what}, which is held by {_holder(one)}")
        with contextlib.suppress(Timeout):
            lock.acquire(timeout=max(until - time.monotonic(), 0), poll_interval=LOOK_EVERY_S)
            return
    except (OSError, NotImplementedError) as error:
        raise StoreError(f"cannot lock {one.path}: {error}; another place for it is needed.") from error
    raise BusyError(f"{one.what} is held by {_holder(one)}; wait for it with --wait 2h, or try later.")


def _write(one: Wanted, holder: Holder) -> None:
    with contextlib.suppress(LoadgenError, OSError):  # a full disk: the lock is held all the same
        write_json(_about(one), holder)
        _about(one).chmod(one.mode & 0o644)  # who shares a lock may read whom to ask for it


def _clear_away(one: Wanted) -> None:
    with contextlib.suppress(OSError):  # in a folder with a sticky bit it may be of another user, who was killed
        _about(one).unlink(missing_ok=True)


def _holder(one: Wanted) -> str:
    """Who holds a lock, as far as can be told: the file may be of one that was killed, and the next not yet have
    written its own."""
    try:
        known = msgspec.convert(read_json(_about(one)), Holder)
    except (LoadgenError, msgspec.ValidationError):
        return "another process"
    here = known.host == socket.gethostname()
    return known.sentence() if not here or _lives(known) else "another process"


def _lives(holder: Holder) -> bool:
    try:
        return abs(psutil.Process(holder.pid).create_time() - holder.started) < 1
    except psutil.Error:
        return False


def _this(purpose: str) -> Holder:
    own = psutil.Process()
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return Holder(pid=own.pid, started=own.create_time(), host=socket.gethostname(), purpose=purpose, since=now)


def _about(one: Wanted) -> Path:
    return one.path.with_suffix(".json")


def _called(name: str) -> str:
    return "the lock of this machine's cores" if name == CORES else name


def _shared_folder() -> Path | None:
    """The folder of locks of all users; None where there is none. One that was named, or that is root's, and cannot be
    used is an error: whoever took another would measure beside somebody."""
    named = os.environ.get("LOADGEN_LOCKS")
    folder = Path(named or SHARED)
    if named and not folder.is_dir():
        raise StoreError(f"LOADGEN_LOCKS: there is no folder {folder}; make it, for all who share the GPUs.")
    if not named and not _roots(folder):
        return None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise StoreError(
            f"the locks of this machine lie in {folder}, which this user cannot write: have it made `chmod 1777`, or "
            "name another folder, that of all who share the GPUs, by LOADGEN_LOCKS."
        )
    return folder


def _roots(folder: Path) -> bool:
    """True for a folder that only root can have made: where everybody can write, it could be somebody's trap."""
    try:
        found = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == 0


def _own_folder() -> Path:
    """A folder of this user alone: in a place that everybody can write, a lock could be somebody's trap."""
    place = next((Path(one) for one in PLACES if os.access(one, os.W_OK | os.X_OK)), None)
    if place is None:
        raise StoreError(f"none of {', '.join(PLACES)} can be written; name a folder for locks by LOADGEN_LOCKS.")
    folder = place / f"loadgen-{os.getuid()}"
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise StoreError(f"{folder} is not this user's folder; name another for locks by LOADGEN_LOCKS.")
    return folder
