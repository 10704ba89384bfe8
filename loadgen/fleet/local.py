"""Worker processes on this machine: started once, given one job after the other, stopped with the run.

In: jobs (one a worker) for a repeat. Out: their audits; the records are in the files that the workers wrote. A worker
that dies costs its share of the load, and the caller is told. All workers start at one moment of the clock that they
share (CLOCK_MONOTONIC), and their schedules are checked to add up before that.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal

import msgspec

from loadgen import errors
from loadgen.drive.job import Job
from loadgen.drive.schedule import digest
from loadgen.drive.tally import Audit, Tick

Stop = Literal["drain", "now"]

_READY_S = 120.0
_LEAD_NS = 50_000_000
"""Workers are told to start this much ahead, so that all of them have the message by then."""
_LOOK_S = 0.1


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a repeat left besides its records. ``lost`` names workers that died; ``start_ns`` is monotonic,
    ``started_at`` the same moment in seconds since the epoch."""

    start_ns: int
    started_at: float
    audits: tuple[Audit, ...]
    lost: tuple[str, ...] = ()


class Fleet:
    """``workers`` processes. Use it as a context manager; leaving it ends them."""

    def __init__(self, workers: int) -> None:
        self._processes = [_Process(index) for index in range(workers)]

    def __enter__(self) -> Fleet:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.end()

    def run(
        self,
        jobs: Sequence[Job],
        on_tick: Callable[[Tick], None],
        look: Callable[[], Stop | None],
        measure_at: Callable[[], int | None] = lambda: None,
    ) -> Outcome:
        """Runs one repeat and returns when it is over.

        ``look()`` is called some ten times a second and says whether to stop; ``measure_at()`` likewise, and gives the
        end (monotonic ns) of a warm-up whose length is not fixed, once it is known. Raises the worker's own error
        (TargetError, UsageError ...) if one could not make itself ready; LoadgenError if one died before it was, or if
        the schedules do not add up.
        """
        taken = self._processes[: len(jobs)]
        try:
            for process, job in zip(taken, jobs, strict=True):
                process.revive()
                process.say("job", job)
            ready = [process.wait("ready", _READY_S) for process in taken]
            _check_digests(jobs, [int(message["digest"]) for message in ready])
            start = time.monotonic_ns() + _LEAD_NS
            for process in taken:
                process.say("start", start)
            return self._follow(taken, start, on_tick, look, measure_at)
        except BaseException:
            for process in taken:  # in the middle of this job they would misunderstand the next
                process.end()
            raise

    def _follow(
        self,
        taken: Sequence[_Process],
        start: int,
        on_tick: Callable[[Tick], None],
        look: Callable[[], Stop | None],
        measure_at: Callable[[], int | None],
    ) -> Outcome:
        started_at = time.time() + (start - time.monotonic_ns()) / 1e9
        audits: dict[int, Audit] = {}
        lost: dict[int, str] = {}
        told: Stop | None = None
        measuring = False
        with selectors.DefaultSelector() as selector:
            for process in taken:
                selector.register(process.stdout, selectors.EVENT_READ, process)
            while len(audits) + len(lost) < len(taken):
                for key, _ in selector.select(_LOOK_S):
                    process = key.data
                    for message in process.messages():
                        if "tick" in message:
                            on_tick(msgspec.convert(message["tick"], Tick))
                        elif "done" in message:
                            audits[process.index] = msgspec.convert(message["done"], Audit)
                        elif "failed" in message:
                            lost[process.index] = f"worker {process.index} failed: {message['failed']['text']}"
                    if process.gone:
                        selector.unregister(process.stdout)
                        if process.index not in audits:
                            lost.setdefault(process.index, process.epitaph())
                wanted = look()
                if wanted is not None and wanted != told:
                    told = wanted
                    _tell(taken, "stop", wanted)
                if not measuring and (at := measure_at()) is not None:
                    measuring = True
                    _tell(taken, "measure", at)
        return Outcome(start_ns=start, started_at=started_at, audits=tuple(audits.values()), lost=tuple(lost.values()))


def _tell(processes: Sequence[_Process], kind: str, value: Any) -> None:
    for process in processes:
        if not process.gone:
            process.say(kind, value)


def _check_digests(jobs: Sequence[Job], found: Sequence[int]) -> None:
    job = jobs[0]
    whole = digest(job.shape, job.seed, 0, 1)
    if sum(found) % (1 << 64) != whole:
        raise errors.LoadgenError(
            f"the schedules of {len(jobs)} workers do not add up to the whole: {sum(found) % (1 << 64):x} is not "
            f"{whole:x}. Workers of different versions of loadgen do that; otherwise it is a bug, please report it."
        )


class _Process:
    """One worker process and the lines between us."""

    def __init__(self, index: int) -> None:
        self.index = index
        self._start()

    def _start(self) -> None:
        self._data = b""
        self.gone = False
        self._popen = subprocess.Popen(
            [sys.executable, "-m", "loadgen.drive.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the parent, which tells the workers how to stop
        )
        assert self._popen.stdin is not None
        assert self._popen.stdout is not None
        self._stdin = self._popen.stdin
        self.stdout = self._popen.stdout

    def revive(self) -> None:
        """Starts the process anew if the one before died or was ended."""
        if self.gone or self._popen.poll() is not None:
            self.end()
            self._start()

    def say(self, kind: str, value: Any) -> None:
        """Sends a message; a process that is gone is noticed when it is read from."""
        with contextlib.suppress(BrokenPipeError):
            self._stdin.write(msgspec.json.encode({kind: value}) + b"\n")
            self._stdin.flush()

    def messages(self) -> list[dict[str, Any]]:
        """What has come; call it when stdout can be read. Sets ``gone`` at the end of the output."""
        data = os.read(self.stdout.fileno(), 1 << 20)
        self.gone = not data
        *lines, self._data = (self._data + data).split(b"\n")
        return [msgspec.json.decode(line) for line in lines]

    def wait(self, kind: str, seconds: float) -> dict[str, Any]:
        """The next message of a kind. Raises the worker's error, or LoadgenError if it died or said nothing."""
        limit = time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            selector.register(self.stdout, selectors.EVENT_READ)
            while time.monotonic() < limit:
                if not selector.select(_LOOK_S):
                    continue
                for message in self.messages():
                    if "failed" in message:
                        failed = message["failed"]
                        raise getattr(errors, failed["kind"], errors.LoadgenError)(failed["text"])
                    if kind in message:
                        value: dict[str, Any] = message[kind]
                        return value
                if self.gone:
                    raise errors.LoadgenError(f"{self.epitaph()} before it was ready")
        raise errors.LoadgenError(f"worker {self.index} was not ready after {seconds:g} s")

    def epitaph(self) -> str:
        """How the process ended, for people."""
        code = self._popen.wait()
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        return f"worker {self.index} (pid {self._popen.pid}) {how}"

    def end(self) -> None:
        """Ends the process: its input closes, and it goes by itself; if not, it is killed."""
        with contextlib.suppress(BrokenPipeError):
            self._stdin.close()
        try:
            self._popen.wait(5)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()
        self.stdout.close()
        self.gone = True
