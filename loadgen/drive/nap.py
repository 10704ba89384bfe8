"""How long a busy loop sleeps before it polls.

A loop that naps fetches a dozen pieces a wake instead of one or two, at half the cost. Arrivals are the kernel's, so no
time is worse for it, and a nap never reaches into a send that is due. In a closed loop a reply's end may be noticed a
nap late: naps are 2 % of the TTFT, within bounds.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from loadgen.drive.outcome import Exchange

_LEAST_S, _MOST_S = 0.0002, 0.001
_SHARE = 0.02
_BUSY_READS = 200
"""Above this many reads between two checks (100 ms) the loop naps."""
_LOOK_AT = 64


class Nap:
    """``s`` is the length of a nap, 0 while there is none. Add to ``reads`` what was read."""

    def __init__(self) -> None:
        self.s = 0.0
        self.reads = 0
        self._ttft_s = 0.0

    def check(self, active: Iterable[Exchange]) -> None:
        """Ten times a second: naps, or no naps. Until a reply has ended those in flight say what the TTFT is."""
        if not self._ttft_s:
            found = (_ttft_s(exchange) for exchange in islice(active, _LOOK_AT))
            self._ttft_s = next(filter(None, found), 0.0)
        self.s = min(max(_SHARE * self._ttft_s, _LEAST_S), _MOST_S) if self.reads > _BUSY_READS else 0.0
        self.reads = 0

    def learn(self, ttft_s: float) -> None:
        """The TTFT of a reply that has ended (s)."""
        self._ttft_s += 0.1 * (ttft_s - self._ttft_s)


def _ttft_s(exchange: Exchange) -> float:
    reply = exchange.reply
    return (reply.chunk_ns[0] - exchange.t_send) / 1e9 if reply is not None and reply.chunk_ns else 0.0
