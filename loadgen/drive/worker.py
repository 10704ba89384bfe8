"""A worker process: ``python -m loadgen.drive.worker``. It talks in lines of JSON and ends when its input does.

In (standard input)::

    {"job": {...}}                        make it ready: connections, prompts, counters
    {"start": 123456789}                  run it from this moment (monotonic ns, the same clock for all workers)
    {"measure": 123456789}                the warm-up is over (only for jobs with warmup_s null)
    {"stop": "drain" | "now"}             send nothing more; with "now" what is in flight is cancelled

Out (standard output)::

    {"ready": {"digest": ...}}            after a job
    {"tick": {...}}                       every second
    {"done": {...}}                       after a repeat: the audit
    {"failed": {"kind": ..., "text": ...}} a job that cannot be run

One process runs many jobs, one after the other. It is started in its own session, so that a Ctrl-C reaches the parent
alone, which then says how to stop.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import resource
import sys
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from loadgen.drive import fast
from loadgen.drive.clock import cpu_s, now_ns
from loadgen.drive.job import Job
from loadgen.drive.loop import Loop
from loadgen.drive.prepare import Prepared, token_counter
from loadgen.drive.schedule import digest
from loadgen.drive.tally import Audit, say
from loadgen.drive.traffic import Traffic
from loadgen.errors import LoadgenError, TargetError

_WARM_LIMIT = 4096


class Control:
    """The parent's messages, from a descriptor that is read without waiting while a repeat runs."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.closed = False
        self._data = b""

    def next(self) -> dict[str, Any] | None:
        """The next message, waiting for it; None at the end of the input."""
        while b"\n" not in self._data and not self.closed:
            self._read()
        return self.take()

    def take(self) -> dict[str, Any] | None:
        """A message that is already here, or None."""
        line, newline, rest = self._data.partition(b"\n")
        if not newline:
            return None
        self._data = rest
        message: dict[str, Any] = msgspec.json.decode(line)
        return message

    def poll(self) -> None:
        """Reads what is here; call it when the descriptor is readable."""
        self._read()

    def _read(self) -> None:
        data = os.read(self.fd, 1 << 20)
        self.closed = not data
        self._data += data


def main() -> None:
    """Runs jobs until the input ends."""
    _raise_file_limit()
    control = Control(sys.stdin.fileno())
    out = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # so that nothing that prints can break the lines to the parent
    while (message := control.next()) is not None:
        if "job" not in message:
            continue
        job = msgspec.convert(message["job"], Job)
        try:
            _run(job, control, lambda kind, value: _tell(out, kind, value))
        except LoadgenError as error:
            _tell(out, "failed", {"kind": type(error).__name__, "text": str(error)})
        except OSError as error:
            text = f"{error.filename or job.out}: {error.strerror or error}; a worker could not go on"
            _tell(out, "failed", {"kind": "StoreError", "text": text})


def _run(job: Job, control: Control, tell: Callable[[str, Any], None]) -> None:
    used_before = cpu_s()  # by the jobs before this one
    prepared = Prepared(job)
    with contextlib.ExitStack() as stack:
        fd = os.open(job.out, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        stack.callback(os.close, fd)
        count = token_counter(job.tokenizer)
        carry = _carrier_of(job)
        loop = Loop(prepared, count, lambda lines: _write_all(fd, lines), lambda tick: tell("tick", tick), carry)
        stack.callback(loop.close)
        try:
            loop.warm(_connections(job))
        except OSError as error:
            raise TargetError(f"{' and '.join(job.urls)} cannot be reached: {error.strerror or error}") from error
        mine = digest(job.shape, job.seed, job.worker, job.workers)
        stack.callback(_thaw)
        # A collection in the middle would stop the loop for milliseconds; the loop makes no cycles. One between "start"
        # and the start would make the first sends late: to free what the repeat before left (its tokenizer, mostly)
        # takes longer than that lead.
        gc.collect()
        gc.freeze()
        gc.disable()
        tell("ready", {"digest": mine})
        message = control.next()
        while message is not None and "start" not in message:
            if "stop" in message:
                tell("done", _audit(loop, job, mine, used_before))
                return
            message = control.next()
        if message is None:
            return
        loop.watch(control.fd, lambda: _obey(loop, control))
        loop.run(message["start"])
        tell("done", _audit(loop, job, mine, used_before))


def _thaw() -> None:
    """Gives what the repeat left behind to the collector again."""
    gc.unfreeze()
    gc.enable()


def _carrier_of(job: Job) -> Callable[..., Any]:
    """What moves the bytes: our own sockets, or another client by its file's name."""
    if job.driver == "loadgen":
        return Traffic
    from loadgen.drive.clients import ClientTraffic

    module = importlib.import_module(f"loadgen.drive.clients.{job.driver}")
    return partial(ClientTraffic, open_client=module.open_client)


def _obey(loop: Loop, control: Control) -> None:
    control.poll()
    while (message := control.take()) is not None:
        if "stop" in message:
            loop.stop(at_once=message["stop"] == "now")
        elif "measure" in message:
            loop.measure_from_now(message["measure"])
    if control.closed:  # the parent is gone: nobody will ever stop this run
        loop.stop(at_once=True)
        loop.unwatch(control.fd)


def _connections(job: Job) -> int:
    """How many connections to open ahead: the slots of a closed loop, a second's worth (the busiest) of an open one."""
    shape = job.shape
    if shape.arrival is None:
        wanted = shape.concurrency or 1
    elif shape.arrival.kind == "burst":
        wanted = shape.arrival.count
    elif shape.arrival.kind == "timestamps":
        wanted = max(Counter(map(int, shape.arrival.timestamps)).values(), default=1)
    else:
        wanted = int(max([shape.arrival.rate_rps, *(rate for _, rate in shape.arrival.rates)])) + 1
    return max(1, min(-(-wanted // job.workers), _WARM_LIMIT))


def _audit(loop: Loop, job: Job, mine: int, used_before: float) -> Audit:
    share = None
    if loop.cpu_marks is not None:
        t0, c0, t1, c1 = loop.cpu_marks
        if job.shape.window_s is None:  # a window of a number of requests ends with the last reply, not the last send
            t1, c1 = now_ns(), cpu_s()
        share = (c1 - c0) / ((t1 - t0) / 1e9) if t1 > t0 else None
    tally = loop.tally
    return Audit(
        worker=job.worker,
        digest=mine,
        sent=tally.sent_total,
        dropped=tally.dropped,
        cpu_s=cpu_s() - used_before,
        cpu_share=share,
        rss_mib=peak_mib(),
        clock_steps=loop.offset.steps,
        kernel_clock=loop.traffic.pools.kernel_clock,
        compiled=fast.native is not None,
        loop_us_max=tally.loop_ns_worst // 1000,
        connections=loop.traffic.pools.opened,
        conversations=loop.talks.counts if loop.talks is not None else None,
    )


def peak_mib() -> float:
    """The largest resident memory of this process so far, in MiB. On Linux getrusage would count the parent's, too,
    which the process was before it became a worker."""
    with contextlib.suppress(OSError), open("/proc/self/status", encoding="ascii", errors="replace") as file:
        for line in file:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    unit = 1 << 20 if sys.platform == "darwin" else 1 << 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def _tell(out: int, kind: str, value: Any) -> None:
    with contextlib.suppress(BrokenPipeError):  # the parent is gone; the end of the input will say so
        _write_all(out, say(kind, value))


def _write_all(fd: int, data: bytes) -> None:
    """Writes all of it. One write is whole lines, so what a kill leaves behind is whole lines, too."""
    while data:
        data = data[os.write(fd, data) :]


def _raise_file_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    main()
