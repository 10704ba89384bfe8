"""What ends a run before its plan does: signals, counted instead of raised, and a time that is up. What was measured is
kept and reported.

In: SIGINT, SIGTERM, a terminal that closes; a moment. Out: what the workers are to do, and the exit code of the first
signal.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import msgspec

from loadgen.errors import EXIT_SIGINT, EXIT_SIGTERM
from loadgen.fleet import Stop

_DRAIN_S = 10.0
"""After the first Ctrl-C, or when the time is up, requests in flight have this long to end."""


class Interrupt(msgspec.Struct):
    """Signals that came: the first drains, the second stops at once. ``exit_code`` is that of the first. From
    ``ends_at`` on (CLOCK_MONOTONIC) nothing is begun any more."""

    ends_at: float = math.inf
    count: int = 0
    exit_code: int | None = None
    since: float = 0.0

    def __call__(self, number: int, _frame: FrameType | None) -> None:
        if not self.count:
            self.exit_code = EXIT_SIGINT if number == signal.SIGINT else EXIT_SIGTERM
            self.since = time.monotonic()
        self.count += 1

    @property
    def out_of_time(self) -> bool:
        """True if the time is up."""
        return time.monotonic() > self.ends_at

    @property
    def over(self) -> bool:
        """True if nothing more is to be begun."""
        return self.count > 0 or self.out_of_time

    def wanted(self, grace_s: float = 0.0) -> Stop | None:
        """What the workers are to do. A repeat that is being measured when the time is up has ``grace_s`` to end."""
        since = self.since if self.count else self.ends_at + grace_s
        gone = time.monotonic() - since
        if gone < 0:
            return None
        return "now" if self.count > 1 or gone > _DRAIN_S else "drain"


@contextmanager
def counted_by(interrupt: Interrupt) -> Iterator[None]:
    """Ctrl-C, SIGTERM and a terminal that closes are counted instead of raised; only the main thread may say so.

    A run under nohup ignores its terminal, and goes on doing so.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [signal.SIGINT, signal.SIGTERM]
    numbers += [signal.SIGHUP] if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN else []
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
