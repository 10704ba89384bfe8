"""The clock of the measuring path. Every number of loadgen that is a time was read here.

All times inside a worker are nanoseconds of CLOCK_MONOTONIC, which all processes of one host share, so that several
workers can start at one instant and their records can be laid side by side.

Arrivals are stamped by the kernel (SO_TIMESTAMPNS), which reads CLOCK_REALTIME when the bytes reach the host, however
long this program then takes to fetch them. `RealtimeOffset` converts such a stamp. Both clocks are slewed alike by NTP,
so their difference is constant until somebody *sets* the time; it is sampled every second, and a step is counted.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import struct
import sys
import time
from typing import Any

now_ns = time.monotonic_ns

SO_TIMESTAMPNS = 35
"""Linux asm-generic/socket.h; Python's socket module has no name for it."""
ANCILLARY = 64
"""Room for one control message with a struct timespec."""
STEP_NS = 1_000_000
"""A change of realtime against monotonic above this was somebody setting the clock."""

_timespec = struct.Struct("@qq")


def ask_for_stamps(sock: socket.socket) -> bool:
    """Asks the kernel to stamp what this socket receives. False where it cannot: macOS, Unix sockets, gVisor."""
    if not sys.platform.startswith("linux") or sock.family == socket.AF_UNIX:
        return False
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    except OSError:
        return False
    return True


def stamp_of(ancillary: list[Any]) -> bytes:
    """The kernel's stamp among the control messages of a recvmsg, a struct timespec; b'' if there is none.

    A socket that was asked for nothing else gets no other control message.
    """
    return ancillary[0][2] if ancillary else b""


def realtime_ns_of(stamp: bytes) -> int:
    """Nanoseconds since the epoch; 0 for a stamp that is not there."""
    if len(stamp) != _timespec.size:
        return 0
    seconds, nanoseconds = _timespec.unpack(stamp)
    return int(seconds * 1_000_000_000 + nanoseconds)


class RealtimeOffset:
    """Realtime minus monotonic in ns, sampled with `sample`; ``steps`` counts how often the clock was set."""

    def __init__(self) -> None:
        self.ns = self._measure()
        self.steps = 0

    def sample(self) -> None:
        """Takes a new sample and notices a step."""
        offset = self._measure()
        self.steps += abs(offset - self.ns) > STEP_NS
        self.ns = offset

    @staticmethod
    def _measure() -> int:
        """The sample whose two monotonic readings lie closest together, of five; its error is half their distance."""
        best = (1 << 62, 0)
        for _ in range(5):
            before = time.monotonic_ns()
            real = time.time_ns()
            after = time.monotonic_ns()
            best = min(best, (after - before, real - (before + after) // 2))
        return best[1]


class Timer:
    """Wakes a poll at an absolute monotonic time, to some microseconds; epoll's own timeout has whole milliseconds.

    It is a Linux timerfd, called through libc because Python has it from 3.13 only. ``fd`` is -1 where there is none;
    then `arm` does nothing and the caller polls with a timeout and spins through the last stretch.
    """

    def __init__(self) -> None:
        self.fd = -1
        self._armed = 0
        if sys.platform.startswith("linux"):
            self._libc = ctypes.CDLL(None, use_errno=True)
            self.fd = self._libc.timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        self._spec = (ctypes.c_long * 4)()

    def arm(self, at_ns: int) -> None:
        """Fires once at ``at_ns``; a time in the past fires at once. Arming for the same time again is free."""
        if self.fd < 0 or at_ns == self._armed:
            return
        self._armed = at_ns
        self._spec[2], self._spec[3] = divmod(max(at_ns, 1), 1_000_000_000)
        self._libc.timerfd_settime(self.fd, 1, self._spec, None)

    def clear(self) -> None:
        """Takes note of a firing."""
        self._armed = 0
        with contextlib.suppress(BlockingIOError):
            os.read(self.fd, 8)

    def close(self) -> None:
        """Gives the descriptor back."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def cpu_s() -> float:
    """CPU seconds (user and system) of this process so far."""
    return time.process_time()
