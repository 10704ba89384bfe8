"""A worker process speaks its protocol, and ends when its parent does."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from drive_driver import drive, make_job
from fakes import FakeServer

from loadgen.drive.clock import cpu_s
from loadgen.drive.job import Shape
from loadgen.drive.schedule import digest
from loadgen.drive.worker import _audit
from loadgen.record import read_records

FAST = {"ttft_ms": 5, "gap_ms": 2, "tokens": 4, "log_body": False}
ENDLESS = {"ttft_ms": 20, "gap_ms": 20, "tokens": 4000, "log_body": False}


class Worker:
    """One worker process and its lines, without the fleet."""

    def __init__(self, code: str | None = None) -> None:
        argv = [sys.executable, *(["-m", "loadgen.drive.worker"] if code is None else ["-c", code])]
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def say(self, **message: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(msgspec.json.encode(message) + b"\n")
        self.process.stdin.flush()

    def hears(self, kind: str) -> Any:
        assert self.process.stdout is not None
        while line := self.process.stdout.readline():
            message = json.loads(line)
            if kind in message:
                return message[kind]
        raise AssertionError(f"the worker ended without {kind}")

    def end(self) -> int:
        """Closes its input; its exit code. ``said`` is then what stood on its standard error."""
        _, said = self.process.communicate(timeout=60)
        self.said = said.decode()
        return self.process.returncode


def test_a_worker_speaks_its_protocol(tmp_path: Path) -> None:
    worker = Worker()
    with FakeServer(**FAST) as server:
        job = make_job(server.url, Shape(concurrency=1, requests=2), out=str(tmp_path / "requests.jsonl"))
        worker.say(unknown=1)
        worker.say(job=job)
        assert worker.hears("ready") == {"digest": digest(job.shape, job.seed, 0, 1)}
        worker.say(unknown=1)
        worker.say(start=time.monotonic_ns() + 1_000_000)
        assert worker.hears("done")["sent"] == 2
        worker.say(job=job)
        worker.hears("ready")
        worker.say(stop="now")  # instead of the start
        assert worker.hears("done")["sent"] == 0
        assert worker.end() == 0
    assert len(list(read_records([Path(job.out)]))) == 2
    assert Path(job.out).stat().st_mode & 0o777 == 0o600


TOLD_OF_COLLECTIONS = """
import gc, sys, time
from loadgen.drive.worker import main
gc.callbacks.append(lambda phase, info: print(time.monotonic_ns(), file=sys.stderr))
main()
"""


def test_a_worker_that_is_ready_starts_at_once(tmp_path: Path) -> None:
    """What it frees of the repeat before takes longer than the time between being told of the start and the start."""
    worker = Worker(TOLD_OF_COLLECTIONS)
    with FakeServer(**FAST) as server:
        job = make_job(server.url, Shape(concurrency=1, requests=2), out=str(tmp_path / "requests.jsonl"))
        idle = []
        for _ in range(2):
            worker.say(job=job)
            worker.hears("ready")
            ready, start = time.monotonic_ns(), time.monotonic_ns() + 50_000_000
            worker.say(start=start)
            assert worker.hears("done")["sent"] == 2
            idle.append((ready, start))
        assert worker.end() == 0
    collected = [int(line) for line in worker.said.splitlines()]
    assert len(collected) >= 4  # begin and end of each
    assert not [at for at in collected for ready, start in idle if ready <= at <= start]


@pytest.mark.parametrize(("shape", "whole"), [({"requests": 1}, True), ({"window_s": 0.2}, False)])
def test_the_cpu_of_a_count_of_requests_is_that_of_their_whole_time(shape: dict[str, Any], whole: bool) -> None:
    """The last send comes long before the last reply, and sending keeps a core busy."""
    with FakeServer(**FAST) as server:
        driven = drive(server.url, {"concurrency": 1, **shape})
        began, used = time.monotonic_ns() - 10**9, cpu_s()
        driven.loop.cpu_marks = (began, used, began + 10**6, used + 10.0)  # ten seconds of CPU in a millisecond
        share = _audit(driven.loop, driven.loop.job, 0, 0.0).cpu_share
        assert share is not None
        assert (share < 1.5) is whole


def test_a_worker_whose_parent_is_gone_stops_by_itself_and_loses_no_record(tmp_path: Path) -> None:
    worker = Worker()
    with FakeServer(**ENDLESS) as server:
        job = make_job(server.url, Shape(concurrency=2, window_s=60.0), out=str(tmp_path / "requests.jsonl"))
        worker.say(job=job)
        worker.hears("ready")
        worker.say(start=time.monotonic_ns())
        worker.hears("tick")
        assert worker.process.stdout is not None
        worker.process.stdout.close()
        assert worker.process.stdin is not None
        worker.process.stdin.close()
        assert worker.process.wait(60) == 0
        assert worker.process.stderr is not None
        assert worker.process.stderr.read() == b""
        worker.process.stderr.close()
    assert [record.status for record in list(read_records([Path(job.out)]))] == ["cancelled", "cancelled"]
