"""The folder of results: who writes what where, so that a kill at any moment loses nothing that was measured.

::

    STORE/runs/<YYYY-MM-DD>/<run_id>/
        run.json        what the run is and how it stands; rewritten as a whole (temporary file, fsync, rename)
        plan.json       cells, order, seeds, digests; written once
        scenario.yaml   byte copy
        probes.json     of a search: what it added to the plan so far, and why it ended
        servers/<server_id>/
        probes/<target>/<server_id>/<key>/   what was asked before timing, where targets are compared
            requests-<host>-w0.jsonl   fingerprint.json
        cells/<cell_id>/<target>/rep-001/attempt-1/
            requests-<host>-w0.jsonl   ticks.jsonl   latency.hlog   summary.json
            intervals.jsonl                      of a long repeat: a line an interval, when it is over
            set_aside.json                       of an attempt that was measured again: why it counts no longer
        report.json  report.md  report.html
    STORE/noise/<kind of machine>/<scenario>-<target>-<6 hex>.json
                        what repeats of one thing differ by there; made by ``loadgen calibrate``

A repeat is whole when its ``summary.json`` is there, because that is renamed into place last. One that is measured
again keeps its attempts: the newest whole one that was not set aside counts. Request lines become
``.jsonl.gz`` when ``loadgen gc`` or a nightly comes across a run that is over, and are the only thing that is ever
deleted (``retention.py``). Folders are 0700 and files 0600: prompts and replies are nobody else's business. Everything
but the request lines can be rebuilt from them.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import msgspec

from loadgen.errors import StoreError, UsageError
from loadgen.record import host_name, lines_name

SCHEMA = 1

SET_ASIDE = "set_aside.json"

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FREE = "Free some space, or choose another place with --store; --resume goes on with a run."


def store_root(given: Path | None) -> Path:
    """Where results go: what was given, else ``$LOADGEN_HOME``, else ``./loadgen-results``."""
    return given or Path(os.environ.get("LOADGEN_HOME") or "loadgen-results")


class Run:
    """The folder of one run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def id(self) -> str:
        return self.folder.name

    def read(self, name: str) -> dict[str, Any]:
        """A JSON file of the run. Raises StoreError with the path if it is not there or is none."""
        return read_json(self.folder / name)

    def write(self, name: str, value: Any) -> None:
        """Writes a JSON file of the run, whole or not at all."""
        write_json(self.folder / name, value)

    def repeat(self, cell: str, target: str, rep: int) -> Repeat:
        """The place of one repeat (counted from 1)."""
        return Repeat(self.folder / "cells" / cell / target / f"rep-{rep:03d}")

    def begun(self, cell: str) -> int:
        """The highest repeat of a cell that was begun, of any target; 0 if there is none."""
        return max((Repeat(path).rep for path in _numbered(self.folder / "cells" / cell, "*/rep-")), default=0)

    def measuring(self) -> Path | None:
        """The attempt that is being measured now; None where the run is over, or between two repeats.

        It is the newest, begun by the process that writes the run, and has come to no end."""
        described = self.read("run.json")
        attempts = [(path.stat().st_mtime, path) for path in self.folder.glob("cells/*/*/rep-*/attempt-*")]
        if described.get("status") != "running" or not attempts:
            return None
        at, newest = max(attempts)
        ended = any((newest / name).exists() for name in ("summary.json", "interrupted.json"))
        return None if ended or at < described.get("pid_started", 0.0) else newest

    def server_folder(self, server: str) -> Path:
        """The folder of a server, made if it is not there."""
        return make_folder(self.folder / "servers" / server)

    def described(self) -> dict[str, Any]:
        """run.json, with every server that has a server.json: a run that was killed did not come to write them down."""
        found = self.read("run.json")
        servers = dict(found.get("servers") or {})
        for path in sorted(self.folder.glob("servers/*/server.json")):
            if path.parent.name not in servers:
                servers[path.parent.name] = read_json(path)
        return {**found, "servers": servers}

    def repeats(self) -> Iterator[Repeat]:
        """Every repeat that was begun."""
        return map(Repeat, sorted(_numbered(self.folder, "cells/*/*/rep-")))


class SetAside(msgspec.Struct, frozen=True, kw_only=True):
    """Why a whole attempt counts no longer: what its ``state`` was, and ``why``; that is empty where nothing was wrong
    with itself, and another of its block was measured again."""

    attempt: int
    state: str
    why: str = ""


class Repeat:
    """The attempts at one repeat. The newest one that is whole, and was not set aside, counts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def rep(self) -> int:
        return int(self.folder.name.removeprefix("rep-"))

    @property
    def target(self) -> str:
        return self.folder.parent.name

    @property
    def cell(self) -> str:
        return self.folder.parent.parent.name

    def attempts(self) -> list[Path]:
        """The folders of the attempts, oldest first."""
        return sorted(_numbered(self.folder, "attempt-"), key=number_of)

    def whole(self) -> Path | None:
        """The attempt that counts: the newest that was finished and not set aside, None if there is none."""
        ended = [path for path in self.attempts() if (path / "summary.json").exists()]
        return next((path for path in reversed(ended) if not (path / SET_ASIDE).exists()), None)

    def set_aside(self) -> list[SetAside]:
        """The attempts that were to be measured again, oldest first. Raises StoreError."""
        paths = [path for attempt in self.attempts() if (path := attempt / SET_ASIDE).exists()]
        try:
            return [msgspec.convert(read_json(path), SetAside) for path in paths]
        except msgspec.ValidationError as error:
            raise StoreError(f"{paths[-1]} does not say why its attempt was set aside: {error}") from error

    def new_attempt(self) -> tuple[int, Path]:
        """The number and folder of a new attempt. Raises StoreError if it cannot be made."""
        attempts = self.attempts()
        number = number_of(attempts[-1]) + 1 if attempts else 1
        return number, make_folder(self.folder / f"attempt-{number}")


def number_of(attempt: Path) -> int:
    """The number of an attempt, from its folder."""
    return int(attempt.name.removeprefix("attempt-"))


def _numbered(folder: Path, pattern: str) -> Iterator[Path]:
    """What is named by this pattern and a number; a folder that somebody called otherwise is none of ours."""
    return (path for path in folder.glob(f"{pattern}*") if path.name.removeprefix(Path(pattern).name).isdecimal())


def requests_path(attempt: Path, worker: int) -> Path:
    """Where a worker of this host writes its request lines."""
    return attempt / lines_name(host_name(), worker)


def request_files(attempt: Path) -> list[Path]:
    """The request lines of an attempt, one file a worker, compressed or not. Where both are there the compressing was
    cut short before its end, and the plain file counts."""
    plain = list(attempt.glob("requests-*.jsonl"))
    packed = [path for path in attempt.glob("requests-*.jsonl.gz") if path.with_suffix("") not in plain]
    return sorted([*plain, *packed])


def create_run(root: Path, name: str) -> Run:
    """A new, empty run folder. Raises StoreError if it cannot be made."""
    now = time.gmtime()
    stamp = time.strftime("%Y%m%dT%H%M%SZ", now)
    run_id = f"{stamp}-{name}-{secrets.token_hex(3)}"
    return Run(make_folder(root / "runs" / time.strftime("%Y-%m-%d", now) / run_id))


def find_run(root: Path, which: str) -> Run:
    """The run of an id, of the start or the end of one, or of a path; ``last`` is the newest.

    Raises UsageError if there is none, or more than one.
    """
    if (Path(which) / "run.json").exists():
        return Run(Path(which))
    found = [path.parent for path in sorted(root.glob("runs/*/*/run.json"), key=lambda path: path.parent.name)]
    if which != "last":
        found = [path for path in found if path.name.startswith(which) or path.name.endswith(which)]
    if not found:
        raise UsageError(f"no run {which!r} in {root}; `ls {root}/runs/*` shows those that are there.")
    if which != "last" and len(found) > 1:
        names = ", ".join(path.name for path in found[:5])
        raise UsageError(f"{which!r} fits {len(found)} runs in {root}: {names}; write more of the name.")
    return Run(found[-1])


def make_folder(path: Path) -> Path:
    """Makes a folder, and those above it, for the owner alone. Raises StoreError."""
    try:
        for folder in [*reversed(path.parents), path]:
            if not folder.exists():
                folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise StoreError(f"cannot make the folder {path}: {error.strerror}; choose another with --store.") from error
    return path


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a file, whole or not at all: temporary file, fsync, rename, fsync of the folder. Raises StoreError."""
    write_stream(path, lambda file: file.write(data))


def write_stream(path: Path, fill: Callable[[IO[bytes]], Any]) -> None:
    """Writes what ``fill`` puts into a file, whole or not at all; on the disk when it returns. Raises StoreError."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(fd, "wb") as file:
            fill(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        with contextlib.suppress(OSError):  # some network file systems cannot do this for a folder
            _sync(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise unwritten(path, error) from error


def unwritten(path: Path, error: OSError) -> StoreError:
    """The sentence for a file that could not be written."""
    advice = f" {FREE}" if error.errno in FULL else ""
    return StoreError(f"cannot write {path}: {error.strerror}. What was written before is whole.{advice}")


def sync(paths: Iterable[Path]) -> None:
    """Puts files that others wrote on the disk, so that nothing which refers to them can outlast them when the power
    goes. Raises StoreError."""
    for path in paths:
        try:
            _sync(path)
        except OSError as error:
            raise unwritten(path, error) from error


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_json(path: Path, value: Any) -> None:
    """Writes a value as indented JSON, whole or not at all. What has names keeps its order: targets and axes are shown,
    and cells named, in that of the scenario."""
    write_bytes(path, msgspec.json.format(msgspec.json.encode(value), indent=1) + b"\n")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises StoreError with the path."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise StoreError(f"{path} is no JSON object: {error}") from error


def append_line(path: Path, value: Any) -> None:
    """Appends one line of JSON to a file. Raises StoreError."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            data = msgspec.json.encode(value) + b"\n"
            while data:  # a disk that is nearly full takes a part, and only then says so
                data = data[os.write(fd, data) :]
        finally:
            os.close(fd)
    except OSError as error:
        raise unwritten(path, error) from error
