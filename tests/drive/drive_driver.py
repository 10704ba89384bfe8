"""The driver in this process, for tests: a loop with a job against a server, and what it leaves behind."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec
from drive_servers import Peer, RawServer, Script

from loadgen.backends import RequestOptions
from loadgen.drive.job import Job, Labels, Shape
from loadgen.drive.loop import Loop
from loadgen.drive.prepare import Prepared
from loadgen.drive.tally import Tick
from loadgen.record import Record, from_line


@dataclass
class Driven:
    """What a loop left behind."""

    records: list[Record]
    ticks: list[Tick]
    loop: Loop

    @property
    def statuses(self) -> Counter[str]:
        return Counter(record.status for record in self.records)

    @property
    def only(self) -> Record:
        (record,) = self.records
        return record


def make_job(url: str, shape: Shape, **fields: Any) -> Job:
    """A job with the shipped prompts for one worker."""
    job = Job(
        labels=Labels(run="run", cell="cell", target="target", rep=1, attempt=1, endpoint=url),
        worker=0,
        workers=1,
        endpoint=url,
        backend="openai_chat",
        options=RequestOptions(model="null"),
        headers={},
        workload="natural",
        settings={"tags": ["chat"], "langs": ["en"]},
        context={"seed": 1, "ask_tok": 3},
        shape=shape,
        seed=1,
        out="",
    )
    return msgspec.structs.replace(job, **fields)


SHORT: dict[str, Any] = {"timeout_s": 5.0, "stall_timeout_s": 5.0, "connect_timeout_s": 2.0, "drain_s": 5.0}


@dataclass
class Driver:
    """A loop that is ready; `run` runs it. ``during`` is called with the loop some 1,000 times a second meanwhile."""

    job: Job
    connections: int = 1
    during: Callable[[Loop], None] | None = None
    lines: list[bytes] = field(default_factory=list)
    ticks: list[Tick] = field(default_factory=list)

    def run(self) -> Driven:
        loop = Loop(Prepared(self.job), None, self.lines.append, self.ticks.append)
        try:
            loop.warm(self.connections)
        except OSError:
            loop.close()
            raise
        with self._called(loop):
            loop.run(time.monotonic_ns() + 1_000_000)
        return Driven([from_line(line) for line in b"".join(self.lines).splitlines()], self.ticks, loop)

    @contextlib.contextmanager
    def _called(self, loop: Loop) -> Iterator[None]:
        """Calls ``during`` in the loop's own thread, through a descriptor that the loop watches, as the parent does."""
        if self.during is None:
            yield
            return
        here, there = socket.socketpair()
        over = threading.Event()

        def ring() -> None:
            while not over.wait(0.001):
                there.send(b".")

        def ready() -> None:
            here.recv(4096)
            assert self.during is not None
            self.during(loop)

        loop.watch(here.fileno(), ready)
        thread = threading.Thread(target=ring)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            here.close()
            there.close()


def drive(url: str, shape: dict[str, Any], connections: int = 1, **fields: Any) -> Driven:
    """Runs a load against a server in this thread."""
    during = fields.pop("during", None)
    return Driver(make_job(url, Shape(**{**SHORT, **shape}), **fields), connections, during).run()


ONE: dict[str, Any] = {"concurrency": 1, "requests": 1}


def once(*pieces: bytes, then: str = "wait") -> Script:
    """Answers one request with these pieces; then waits for the client to go, closes, or resets."""

    def script(peer: Peer) -> None:
        peer.request()
        peer.send(*pieces)
        if then == "wait":
            peer.until_gone()
        elif then == "reset":
            time.sleep(0.05)  # so that the bytes before are read before the cut is
            peer.reset()

    return script


def ask(script: Script, **fields: Any) -> Driven:
    """One request to a server with this script."""
    shape = {**ONE, **fields.pop("shape", {})}
    with RawServer(script) as server:
        return drive(server.url, shape, **fields)
