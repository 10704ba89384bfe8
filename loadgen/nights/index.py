"""``loadgen.db``: an SQLite index of a store's runs and nights, which can be rebuilt from its files at any time.

In: ``runs/`` and ``events.jsonl``, which are the truth. Out: rows. Nobody writes into the index what is not in the
files: it is brought up to date by looking at what they hold by now, under a lock (two processes that make a WAL
database at once fail) and in one transaction, so that a kill at any moment costs nothing but the looking.

Points are kept of nights alone; of other runs there is a line in ``runs``.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TypeVar

import msgspec

from loadgen.assemble import assemble
from loadgen.errors import BusyError, StoreError
from loadgen.nights.events import NAME as EVENTS
from loadgen.nights.events import Night, decoded
from loadgen.nights.series import Point, points_of
from loadgen.ownership import close_abandoned
from loadgen.store import Run, read_json

T = TypeVar("T")

NAME = "loadgen.db"
WAIT_S = 120.0

MIGRATIONS = (
    """
    CREATE TABLE runs (run TEXT PRIMARY KEY, folder TEXT, scenario TEXT, status TEXT, started TEXT, ended TEXT,
                       stamp INTEGER, night INTEGER) WITHOUT ROWID;
    CREATE TABLE facts (run TEXT, cell TEXT, target TEXT, facts TEXT, PRIMARY KEY (run, cell, target)) WITHOUT ROWID;
    CREATE TABLE points (key TEXT, run TEXT, scenario TEXT, cell TEXT, target TEXT, measure TEXT, at TEXT, state TEXT,
                         y REAL, reps INTEGER, is_primary INTEGER, place INTEGER, PRIMARY KEY (key, run)) WITHOUT ROWID;
    CREATE INDEX points_by_run ON points (run);
    CREATE TABLE events (at INTEGER PRIMARY KEY, run TEXT, line BLOB);
    CREATE TABLE progress (name TEXT PRIMARY KEY, value INTEGER) WITHOUT ROWID;
    """,
)
"""What makes version n + 1 of the tables out of version n. A step never changes; a further one is added."""

_BROKEN = ("SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_ERROR", "SQLITE_CONSTRAINT", "SQLITE_MISMATCH")


class _Unusable(Exception):
    """The file is no index that this loadgen can bring up to date."""


def look(root: Path, read: Callable[[sqlite3.Connection], T], say: Callable[[str], None]) -> T:
    """What ``read`` makes of the index of a store, which is brought up to date first. One that is corrupt, or of a
    later loadgen, is made anew, and ``say`` is told, as it is of runs whose process is gone; where the disk is full, it
    is made in memory. Raises StoreError, and BusyError if another process holds it."""
    close_abandoned(root, say)
    with _held(root):
        try:
            return _looked(root, read)
        except (_Unusable, sqlite3.DatabaseError) as error:
            if getattr(error, "sqlite_errorname", "") == "SQLITE_FULL":
                say(f"The index {root / NAME} cannot be written ({error}); it is made in memory, this once.")
                return _looked(root, read, in_memory=True)  # retention, which makes room, asks it what must be kept
            if isinstance(error, sqlite3.DatabaseError) and not _broken(error):
                raise
            say(f"The index {root / NAME} cannot be used ({error}); it is made anew from the runs.")
            _remove(root)
            return _looked(root, read)


def reindex(root: Path, say: Callable[[str], None] = lambda _: None) -> tuple[int, int]:
    """Makes the index anew from the store's files; the number of runs and of nights in it. ``say`` is told of runs
    whose process is gone. Raises as `look` does."""
    close_abandoned(root, say)
    with _held(root):
        _remove(root)
        return _looked(root, _counted)


@contextmanager
def _held(root: Path) -> Iterator[None]:
    """Nobody else looks at the index meanwhile, not even one that it is being taken away from."""
    from filelock import FileLock, Timeout

    path = root / NAME
    try:
        with FileLock(root / f".{NAME}.lock", timeout=WAIT_S, mode=0o600):
            yield
    except Timeout as error:
        raise BusyError(f"another process has held the index {path} for {WAIT_S:.0f} s; try again.") from error
    except (OSError, NotImplementedError, sqlite3.DatabaseError) as error:  # some network disks know no locks
        raise StoreError(f"cannot use the index {path}: {error}. The runs are as they were.") from error


def contents(root: Path) -> dict[str, list[tuple[object, ...]]]:
    """Every row of the index by table, as it stands in the file now."""
    with closing(sqlite3.connect(root / NAME)) as index:
        found = index.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name").fetchall()
        return {name: sorted(index.execute(f"SELECT * FROM {name}").fetchall(), key=repr) for (name,) in found}


def _counted(index: sqlite3.Connection) -> tuple[int, int]:
    runs, nights = index.execute("SELECT count(*), count(night) FROM runs").fetchone()
    return int(runs), int(nights)


def _broken(error: sqlite3.DatabaseError) -> bool:
    """True if the file is at fault, and not a full disk or a missing permission."""
    name = getattr(error, "sqlite_errorname", "")
    return any(name.startswith(one) for one in _BROKEN)


def _remove(root: Path) -> None:
    for end in ("", "-wal", "-shm", "-journal"):
        (root / f"{NAME}{end}").unlink(missing_ok=True)


def _looked(root: Path, read: Callable[[sqlite3.Connection], T], in_memory: bool = False) -> T:
    path = root / NAME
    if not in_memory:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))  # what SQLite adds beside it gets the same mode
    with closing(sqlite3.connect(":memory:" if in_memory else path, isolation_level=None)) as index:
        index.execute("PRAGMA locking_mode = EXCLUSIVE")  # ours alone by the lock; so it needs no shared memory (NFS)
        index.execute("PRAGMA journal_mode = WAL")
        index.execute("PRAGMA synchronous = NORMAL")
        _migrate(index)
        index.execute("BEGIN IMMEDIATE")
        try:
            _bring_up_to_date(root, index)
        except BaseException:
            index.execute("ROLLBACK")
            raise
        index.execute("COMMIT")
        return read(index)


def _migrate(index: sqlite3.Connection) -> None:
    (version,) = index.execute("PRAGMA user_version").fetchone()
    if version > len(MIGRATIONS):
        raise _Unusable(f"it has version {version}, and this loadgen knows up to {len(MIGRATIONS)}")
    for number, script in enumerate(MIGRATIONS[version:], version + 1):
        index.executescript(f"BEGIN IMMEDIATE; {script} PRAGMA user_version = {number}; COMMIT;")


# What the files hold by now -------------------------------------------------------------------------------------------


def _bring_up_to_date(root: Path, index: sqlite3.Connection) -> None:
    _read_events(root, index)
    known = {run: (folder, stamp) for run, folder, stamp in index.execute("SELECT run, folder, stamp FROM runs")}
    found = _found(root, {folder: (run, stamp) for run, (folder, stamp) in known.items()})
    for run in known.keys() - found.keys():
        _forget(index, run)
    nights = {run: number for number, run in index.execute("SELECT at, run FROM events WHERE run IS NOT NULL")}
    noted = {run for (run,) in index.execute("SELECT run FROM runs WHERE night IS NOT NULL")}
    for run, (path, stamp) in sorted(found.items()):
        if known.get(run) != (_place(path), stamp) or (run in nights) != (run in noted):
            _forget(index, run)
            _add(index, run, (path, stamp), nights.get(run))


def _found(root: Path, known: Mapping[str, tuple[str, int]]) -> dict[str, tuple[Path, int]]:
    """Every run of the store by its id, with its run.json and when that was written. The id stands in run.json, so that
    a folder which somebody renamed is the run that it was; of two that say the same, one is a copy. ``known`` are ids
    and stamps by folder, of the last look."""
    found: dict[str, tuple[Path, int]] = {}
    for path in sorted(root.glob("runs/*/*/run.json")):
        try:
            stamp = path.stat().st_mtime_ns
        except FileNotFoundError:  # taken away in the meantime
            continue
        run, seen = known.get(_place(path), ("", 0))
        run = run if seen == stamp else _id_of(path)
        if run not in found or path.parent.name == run:
            found[run] = (path, stamp)
    return found


def _id_of(path: Path) -> str:
    """The id of a run by its run.json; its folder's name where that cannot be read, or says what is no name."""
    try:
        run = read_json(path).get("run")
    except StoreError:
        return path.parent.name
    return run if isinstance(run, str) and run and Path(run).name == run else path.parent.name


def _place(path: Path) -> str:
    """The folder of a run.json, from the store on."""
    return "/".join(path.parts[-4:-1])


def _read_events(root: Path, index: sqlite3.Connection) -> None:
    """The events that came since the last look. A last line without its end is left for the next one."""
    path = root / EVENTS
    progress = dict(index.execute("SELECT name, value FROM progress"))
    done, number = progress.get("events_bytes", 0), progress.get("events", 0)
    size = path.stat().st_size if path.exists() else 0
    if size < done:
        raise _Unusable(f"{EVENTS} is shorter than it was")
    if size == done:
        return
    with path.open("rb") as file:
        file.seek(done)
        new = file.read()
    whole = new[: new.rfind(b"\n") + 1]
    for event, line in decoded(whole):
        number += 1
        run = event.run if isinstance(event, Night) else None
        index.execute("INSERT INTO events VALUES (?, ?, ?)", (number, run, line))
    for name, value in (("events_bytes", done + len(whole)), ("events", number)):
        index.execute("INSERT OR REPLACE INTO progress VALUES (?, ?)", (name, value))


def _forget(index: sqlite3.Connection, run: str) -> None:
    for table in ("runs", "points", "facts"):
        index.execute(f"DELETE FROM {table} WHERE run = ?", (run,))


def _add(index: sqlite3.Connection, run: str, at: tuple[Path, int], night: int | None) -> None:
    """A run's line, and its points if it is a night. One that cannot be read has a line that says so. ``at``: its
    run.json, and when that was written."""
    path, stamp = at
    words, points = ("", "unreadable", "", ""), list[Point]()
    try:
        described = read_json(path)
        found = points_of(assemble(Run(path.parent))) if night is not None else []
        scenario, status = described["scenario"]["name"], described["status"]
        words = (str(scenario), str(status), str(described.get("started") or ""), str(described.get("ended") or ""))
        points = found
    except Exception:  # noqa: BLE001 - a run that is broken in whatever way must not cost the history of the others
        pass
    index.execute("INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (run, _place(path), *words, stamp, night))
    of_points = [_row(place, point) for place, point in enumerate(points)]
    index.executemany("INSERT INTO points VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", of_points)
    facts = {(point.run, point.series.cell, point.series.target): point.facts for point in points}
    of_facts = [(*place, msgspec.json.encode(one, order="sorted").decode()) for place, one in facts.items()]
    index.executemany("INSERT INTO facts VALUES (?, ?, ?, ?)", of_facts)


def _row(place: int, point: Point) -> tuple[str | float | None, ...]:
    one = point.series
    named = (one.key, point.run, one.scenario, one.cell, one.target, one.measure)
    return (*named, point.at, point.state, point.y, point.reps, int(point.primary), place)
