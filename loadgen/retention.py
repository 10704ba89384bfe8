"""What is kept of runs that are over: request lines compressed, and after a time deleted; everything else for ever.

In: a store, how long request lines are kept, the runs that must keep theirs (baselines, pins: `History.kept`). Out:
what was done to which run. Summaries, histograms, ticks and reports stay, so a run without its request lines has the
same report. A run that is being written is left alone, and so is a folder that is none (``loadgen launch`` makes them).
"""

from __future__ import annotations

import calendar
import gzip
import shutil
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import IO, Any

import msgspec

from loadgen.errors import BusyError, StoreError
from loadgen.ownership import held, tidy
from loadgen.store import Run, write_stream

KEEP_S = 90 * 86400.0
"""How long request lines are kept where nobody says otherwise."""

LEVEL = 1
"""Of gzip. Arrival times are noise, which level 6 makes an eighth smaller than level 1 in six times the time."""

SETTLED_S = 60.0
"""The workers of a run that was killed outlive it by moments. Until then its files are as they were."""


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """What was done, or would be, to one run: files and their bytes. ``packed_bytes`` is what the compressed ones had
    before, ``saved_bytes`` what that saved, None where it was not done. ``spared`` says that its lines are old and stay
    all the same; ``failed`` what went wrong, None if nothing did."""

    run: str
    packed: int = 0
    packed_bytes: int = 0
    saved_bytes: int | None = None
    deleted: int = 0
    deleted_bytes: int = 0
    spared: bool = False
    failed: str | None = None

    @property
    def nothing(self) -> bool:
        """True if there was nothing to do and nothing to say."""
        return not (self.packed or self.deleted or self.spared or self.failed)


def collect(
    root: Path, needed: Collection[str], keep_s: float = KEEP_S, now: float | None = None, *, dry_run: bool = False
) -> Iterator[Kept]:
    """Compresses the request lines of every run that is over, and deletes those of runs that ended longer than
    ``keep_s`` ago; of ``needed`` ones, by id, it deletes none. Yields each run with which there was something to do.

    Deleting comes first: a disk that is nearly full has room for the compressing then. With ``dry_run`` nothing is
    done. A run that cannot be written says so in its `Kept`, and the others go on.
    """
    now = time.time() if now is None else now
    runs = [Run(path.parent) for path in sorted(root.glob("runs/*/*/run.json"))]
    old = {run.id for run in runs if _age(run, now) > keep_s}
    for run in sorted(runs, key=lambda run: run.id not in old):
        found = _one(run, run.id in old, run.id in needed, dry_run)
        if not found.nothing:
            yield found


def request_lines(run: Run) -> list[Path]:
    """Every file of request lines of a run, the probes' among them, compressed or not."""
    places = ("cells/*/*/rep-*/attempt-*", "probes/*/*/*")
    return sorted(path for place in places for path in run.folder.glob(f"{place}/requests-*.jsonl*"))


def compress(path: Path) -> int:
    """Replaces a file by its ``.gz``; how many bytes that saved. At every moment one of them is whole and the other is
    not counted. Raises StoreError."""
    before = path.stat().st_size

    def fill(file: IO[bytes]) -> None:
        with path.open("rb") as plain, gzip.GzipFile("", "wb", LEVEL, file, mtime=0) as packed:
            shutil.copyfileobj(plain, packed, 1 << 20)

    packed = path.with_name(f"{path.name}.gz")
    write_stream(packed, fill)
    path.unlink()
    return before - packed.stat().st_size


def _one(run: Run, old: bool, needed: bool, dry_run: bool) -> Kept:
    try:
        with held(run):
            files = request_lines(run)
            if _unsettled(run, files):
                return Kept(run=run.id)
            if old and needed:
                return msgspec.structs.replace(_compressed(run, files, dry_run), spared=bool(files))
            return _deleted(run, files, dry_run) if old else _compressed(run, files, dry_run)
    except BusyError:
        return Kept(run=run.id)
    except (StoreError, OSError) as error:
        return Kept(run=run.id, failed=str(error))


def _compressed(run: Run, files: list[Path], dry_run: bool) -> Kept:
    plain = [path for path in files if path.suffix == ".jsonl"]
    size = sum(path.stat().st_size for path in plain)
    if dry_run:
        return Kept(run=run.id, packed=len(plain), packed_bytes=size)
    tidy(run)
    saved = sum(compress(path) for path in plain)
    return Kept(run=run.id, packed=len(plain), packed_bytes=size, saved_bytes=saved)


def _deleted(run: Run, files: list[Path], dry_run: bool) -> Kept:
    """run.json says first that they are gone, so that nobody takes the run for one that lost its records."""
    size = sum(path.stat().st_size for path in files)
    if files and not dry_run:
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        run.write("run.json", {**run.read("run.json"), "requests_deleted": at})
        tidy(run)
        for path in files:
            path.unlink(missing_ok=True)
    return Kept(run=run.id, deleted=len(files), deleted_bytes=size)


def _unsettled(run: Run, files: list[Path]) -> bool:
    killed = run.read("run.json").get("status") in ("aborted", "running")
    return killed and any(time.time() - path.stat().st_mtime < SETTLED_S for path in files)


def _age(run: Run, now: float) -> float:
    """Seconds since a run ended, or began where it does not say more; 0 for one that cannot be read."""
    try:
        described: dict[str, Any] = run.read("run.json")
        said = described.get("ended") or described.get("started")
        return now - calendar.timegm(time.strptime(str(said), "%Y-%m-%dT%H:%M:%SZ"))
    except (StoreError, ValueError):
        return 0.0
