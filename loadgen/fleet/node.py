"""What stands beside a worker on another machine: it starts the worker, and hands over in batches what that writes.

In: a job, the start, words such as stop. Out: `Batch` after `Batch`, one a second. The worker is the process that a
local fleet starts, and knows nothing of this: it writes its request lines to a file on its own machine. This program
reads that file after every tick and offers what is new. It gives up a batch only when the next one is asked for, so
one that got lost on the way is there again, the same to the last byte; and what was handed over survives this machine.

It is plain Python with nothing of Ray in it; `loadgen.fleet.ray` makes an actor of it.
"""

from __future__ import annotations

import contextlib
import os
import platform
import selectors
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from loadgen import __version__
from loadgen.drive.job import Job
from loadgen.drive.tally import Audit, Tick
from loadgen.errors import LoadgenError
from loadgen.fleet import READY_S
from loadgen.fleet.process import Process
from loadgen.histogram import intervals
from loadgen.record import from_line, host_name

BATCH_S = 1.0
_MOST_BYTES = 8 << 20
"""About what a batch holds at most; what is more waits for the next one."""


class Counted(msgspec.Struct, frozen=True):
    """The latencies of one tag over one step of time, as an encoded histogram (see `loadgen.histogram.Interval`)."""

    tag: str
    start_s: float
    length_s: float
    histogram: str


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker has written since its batch before. ``number`` counts from 1 in every repeat.

    ``lines`` are whole request lines, of which ``at`` is the place of the first byte in the worker's own file. With the
    ``last`` one comes either the worker's audit or, in ``lost``, how it ended.
    """

    worker: int
    number: int
    at: int
    lines: bytes
    ticks: tuple[Tick, ...] = ()
    counted: tuple[Counted, ...] = ()
    done: Audit | None = None
    lost: str | None = None
    last: bool = False


class Ready(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a job: the digest of the share, or the kind and the sentence of what went wrong."""

    digest: int = 0
    failed: tuple[str, str] | None = None


class About(msgspec.Struct, frozen=True, kw_only=True):
    """Where a worker runs. ``nice`` is the worker's niceness; above 0, others on its machine go before it."""

    host: str
    loadgen: str
    python: str
    cores: int
    nice: int


class Node:
    """One worker and what it has written. ``batch`` waits; the other methods may be called while it does."""

    def __init__(self) -> None:
        _take_turn()
        home = os.environ.get("LOADGEN_HOME")
        if home:
            Path(home).mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = Path(tempfile.mkdtemp(prefix="loadgen-fleet-", dir=home or None))
        self._process = Process(0)
        self._lock = threading.Lock()
        self._jobs = 0
        self._number = 0
        self._begin(Path())

    def about(self) -> About:
        """Where this is."""
        return About(
            host=host_name(),
            loadgen=__version__,
            python=platform.python_version(),
            cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
            nice=os.getpriority(os.PRIO_PROCESS, self._process.pid),
        )

    def clock(self) -> int:
        """CLOCK_MONOTONIC of this machine, which the worker reads as well, in ns."""
        return time.monotonic_ns()

    def prepare(self, data: bytes) -> bytes:
        """Makes the worker ready for a job (JSON, with the name of its file in ``out``). A `Ready` in JSON."""
        job = msgspec.json.decode(data, type=Job)
        self._jobs += 1
        folder = self._folder / f"{self._jobs:04d}"
        folder.mkdir(mode=0o700)
        with self._lock:
            self._begin(folder / job.out)
            self._process.index = job.worker
            _take_turn()
            self._process.revive()
            self._process.say("job", msgspec.structs.replace(job, out=str(self._path)))
            try:
                ready = Ready(digest=int(self._process.wait("ready", READY_S)["digest"]))
            except LoadgenError as error:
                where = f"{error} (worker {job.worker}, on {socket.gethostname()})"
                ready = Ready(failed=(type(error).__name__, where))
        return msgspec.json.encode(ready)

    def start(self, at: int) -> int:
        """Tells the worker to start at this moment of its clock; when it was told (ns)."""
        self._process.say("start", at)
        return time.monotonic_ns()

    def say(self, kind: str, value: Any) -> None:
        """Passes a message on to the worker."""
        self._process.say(kind, value)

    def batch(self, number: int) -> bytes:
        """Batch ``number`` in msgpack, waiting up to a second for something to put into it. To ask for a number says
        that the one before has been written down; the same number gives the same batch."""
        with self._lock:
            if number == self._number + 1:
                self._number = number
                self._latest = msgspec.msgpack.encode(self._next())
            return self._latest

    def forget(self) -> None:
        """Everything of the last job was written down elsewhere: the worker's own copy goes."""
        shutil.rmtree(self._path.parent, ignore_errors=True)

    def end(self) -> None:
        """Ends the worker, in the middle of its job if need be; the next job gets a new one."""
        self._process.end()

    def close(self) -> None:
        """Ends the worker for good. What it wrote and nobody asked for stays where it is."""
        self._process.end()
        with contextlib.suppress(OSError):
            self._folder.rmdir()

    def _begin(self, path: Path) -> None:
        self._path = path
        self._number = 0
        self._at = 0
        self._latest = b""
        self._ticks: list[Tick] = []
        self._done: Audit | None = None
        self._lost: str | None = None

    def _next(self) -> Batch:
        if self._done is None and self._lost is None:
            self._listen()
        over = self._done is not None or self._lost is not None  # before the file is read: it grows no more then
        at, lines = self._at, self._more()
        self._at += len(lines)
        last = over and len(lines) < _MOST_BYTES
        ticks, self._ticks = tuple(self._ticks), []
        return Batch(
            worker=self._process.index,
            number=self._number,
            at=at,
            lines=lines,
            ticks=ticks,
            counted=tuple(_counted(lines.splitlines())),
            done=self._done if last else None,
            lost=self._lost if last else None,
            last=last,
        )

    def _listen(self) -> None:
        """Hears the worker until it has said something that is worth a batch, or a second has passed."""
        limit = time.monotonic() + BATCH_S
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while (left := limit - time.monotonic()) > 0 and not (self._ticks or self._done or self._lost):
                if selector.select(left):
                    self._hear()

    def _hear(self) -> None:
        for message in self._process.messages():
            if "tick" in message:
                self._ticks.append(msgspec.convert(message["tick"], Tick))
            elif "done" in message:
                self._done = msgspec.convert(message["done"], Audit)
            elif "failed" in message:
                self._lost = f"worker {self._process.index} failed: {message['failed']['text']}"
        if self._process.gone and self._done is None and self._lost is None:
            self._lost = self._process.epitaph()

    def _more(self) -> bytes:
        """Whole lines that are new in the worker's file. A line that was cut off by a kill is none."""
        with self._path.open("rb") as file:
            file.seek(self._at)
            lines = file.readlines(_MOST_BYTES)
        if lines and not lines[-1].endswith(b"\n"):
            lines.pop()
        return b"".join(lines)


def _take_turn() -> None:
    """Niceness 0 for what this thread starts, where it may: Ray gives its processes 15, and only root can undo it."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, 0)


def _counted(lines: Iterable[bytes]) -> Iterable[Counted]:
    for one in intervals(map(from_line, lines)):
        yield Counted(one.tag, one.start_s, one.length_s, one.histogram.encode())
