"""When the warm-up is over: after a fixed time, or when the server's throughput has come to rest.

The rule for ``warmup_s: auto``: at least 10 s, at least two requests a slot done, and the tokens of the last two
stretches of 5 s differ by less than 5 %; after 120 s it ends anyway, and the numbers carry a doubt.
"""

from __future__ import annotations

import time

from loadgen.drive.job import Shape
from loadgen.drive.tally import Tick
from loadgen.summary import Doubt

_LEAST_S = 10.0
_STRETCH_S = 5
_SAME = 0.05
MOST_S = 120.0
"""The longest warm-up of `auto`."""


class WarmUp:
    """Follows the ticks of one repeat's workers."""

    def __init__(self, shape: Shape, workers: int) -> None:
        self._fixed = shape.warmup_s
        self._need = 2 * (shape.concurrency or 0)
        self._workers = workers
        self._tokens: dict[int, int] = {}
        self._ended = 0
        self._seconds = 0.0
        self._at: int | None = None
        self._capped = False

    def add(self, tick: Tick) -> None:
        """Takes a second of one worker."""
        if self._fixed is not None or self._at is not None:
            return
        second = round(tick.t)
        self._tokens[second] = self._tokens.get(second, 0) + tick.tokens
        self._ended += sum(tick.ended.values())
        self._seconds = max(self._seconds, tick.t)
        self._capped = self._seconds >= MOST_S
        if self._capped or (self._seconds >= _LEAST_S and self._ended >= self._need and self._at_rest(second)):
            self._at = time.monotonic_ns()

    def over(self) -> int | None:
        """The end of a warm-up of no fixed length (monotonic ns), once it is known."""
        return self._at

    def measured_from(self, start_ns: int) -> float:
        """Seconds from the start of the repeat to the window. A warm-up that never ended measures nothing."""
        if self._fixed is not None:
            return self._fixed
        return ((self._at or time.monotonic_ns()) - start_ns) / 1e9

    def doubts(self) -> list[Doubt]:
        """The doubt of a warm-up that was cut off."""
        if not self._capped:
            return []
        text = f"Throughput had not come to rest after {MOST_S:g} s of warm-up; the window began all the same."
        return [Doubt("warmup_capped", text)]

    def _at_rest(self, second: int) -> bool:
        last = sum(self._tokens.get(second - i, 0) for i in range(1, _STRETCH_S + 1))
        before = sum(self._tokens.get(second - _STRETCH_S - i, 0) for i in range(1, _STRETCH_S + 1))
        return before > 0 and abs(last - before) < _SAME * before
