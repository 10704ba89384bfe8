"""Signals that end a run: counted instead of raised, so that what was measured is kept and reported.

In: SIGINT, SIGTERM, a terminal that closes. Out: what the workers are to do, and the exit code of the first signal.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from loadgen.errors import EXIT_SIGINT, EXIT_SIGTERM
from loadgen.fleet import Stop

_DRAIN_S = 10.0
"""After the first Ctrl-C requests in flight have this long to end."""


@dataclass
class Interrupt:
    """Signals that came: the first drains, the second stops at once. ``exit_code`` is that of the first."""

    count: int = 0
    exit_code: int | None = None
    since: float = 0.0

    def __call__(self, number: int, _frame: FrameType | None) -> None:
        if not self.count:
            self.exit_code = EXIT_SIGINT if number == signal.SIGINT else EXIT_SIGTERM
            self.since = time.monotonic()
        self.count += 1

    def wanted(self) -> Stop | None:
        """What the workers are to do."""
        if not self.count:
            return None
        return "now" if self.count > 1 or time.monotonic() - self.since > _DRAIN_S else "drain"


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
