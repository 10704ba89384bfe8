"""What people and nights decided: ``events.jsonl`` of the store, one line an event, appended and never changed.

Everything else in a store follows from runs; this does not, and cannot be rebuilt. Reading passes over a line that a
power cut left half written, and over events that a later loadgen knows.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from loadgen.errors import StoreError
from loadgen.nights.verdicts import SeriesVerdict
from loadgen.store import make_folder

NAME = "events.jsonl"


class _Event(msgspec.Struct, frozen=True, kw_only=True, tag_field="event"):
    """``at`` is when it was written down, in UTC: ``2026-11-21T04:16:56Z``."""

    at: str


class Night(_Event, frozen=True, kw_only=True, tag="night"):
    """A night is over: what its run said of every series. A run is a night once this line is there, and nights follow
    each other in the order of their lines. ``confirms`` are the runs that measured its candidates again."""

    run: str
    scenario: str
    verdicts: tuple[SeriesVerdict, ...]
    confirms: tuple[str, ...] = ()
    exit_code: int = 0


class Raised(_Event, frozen=True, kw_only=True, tag="alert_raised"):
    """An alert was raised for a series, in the night ``run``, in the epoch that began with the run ``epoch``."""

    series: str
    run: str
    epoch: str


class Recovered(_Event, frozen=True, kw_only=True, tag="recovered"):
    """A series whose alert was open was as it should be in the night ``run``."""

    series: str
    run: str


class Accepted(_Event, frozen=True, kw_only=True, tag="accepted"):
    """Somebody takes what these series have measured from the night ``run`` on as the new normal: an epoch begins."""

    series: tuple[str, ...]
    run: str
    note: str = ""


class Pinned(_Event, frozen=True, kw_only=True, tag="pinned"):
    """These nights are what slow drift is measured against from now on, for these series; they are never deleted."""

    series: tuple[str, ...]
    runs: tuple[str, ...]
    note: str = ""


Event = Night | Raised | Recovered | Accepted | Pinned


def append(root: Path, events: Iterable[Event]) -> None:
    """Adds events to the store, on the disk when it returns. Raises StoreError."""
    path = make_folder(root) / NAME
    data = b"".join(msgspec.json.encode(event) + b"\n" for event in events)
    if not data:
        return
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            end = os.fstat(fd).st_size
            torn = end > 0 and os.pread(fd, 1, end - 1) != b"\n"
            _write(fd, b"\n" + data if torn else data)
            os.fsync(fd)
        finally:
            os.close(fd)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror}. What was written before is whole.") from error


def _write(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


def read_events(root: Path) -> list[Event]:
    """Every event of a store in order; none where nothing was decided yet. Raises StoreError."""
    path = root / NAME
    try:
        return [event for event, _ in decoded(path.read_bytes())]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror}") from error


def decoded(data: bytes) -> Iterator[tuple[Event, bytes]]:
    """The events of whole lines, each with its line; half a line, or an event of a later loadgen, is passed over."""
    decoder = msgspec.json.Decoder(Event)
    for line in data.split(b"\n"):
        try:
            yield decoder.decode(line), line
        except msgspec.MsgspecError:
            continue
