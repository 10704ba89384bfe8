"""The steps that are done for every token exist twice: in Python, and in C (`_fast.c`) at half the CPU.

The C is built where loadgen is installed with a compiler and Python's headers at hand; where it is not, nothing is
missing: the times are the kernel's either way. ``LOADGEN_PURE=1`` in the environment leaves it aside.

* reading a socket with its stamp: `receiver`; and all that carry familiar streams at once: `hot.read_on`;
* taking the familiar events out of what was read: ``native.take``, or the Python in `scan.py`.
"""

from __future__ import annotations

import importlib
import os
import socket
from collections.abc import Callable
from functools import partial
from typing import Any

from loadgen.drive.clock import ANCILLARY, now_ns

Receive = Callable[[int], tuple[bytes, bytes, int]]
"""Takes a size; gives at most so many bytes, the kernel's stamp of them (b'' without one), and the time of the read
(monotonic ns). Never waits. Raises OSError."""


def _load() -> Any:
    """The module in C, None without it."""
    if os.environ.get("LOADGEN_PURE") == "1":
        return None
    try:
        return importlib.import_module("loadgen.drive._fast")
    except ImportError:
        return None


native: Any = _load()


def receiver(sock: socket.socket) -> Receive:
    """What reads this non-blocking socket."""
    if hasattr(native, "receive"):  # Linux
        return partial(native.receive, sock.fileno())
    recvmsg = sock.recvmsg

    def receive(size: int) -> tuple[bytes, bytes, int]:
        data, ancillary, _, _ = recvmsg(size, ANCILLARY)
        return data, ancillary[0][2] if ancillary else b"", now_ns()  # clock.stamp_of, without a call for every token

    return receive
