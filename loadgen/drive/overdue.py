"""Which requests have taken too long, and how that is called in their records. No clock is read here."""

from __future__ import annotations

from collections.abc import Collection

from loadgen.drive.job import Shape
from loadgen.drive.outcome import Exchange


def overdue(exchange: Exchange, now: int, shape: Shape, drain_until: int) -> tuple[str, str] | None:
    """Status and text of a request that has run out of time by ``now`` (ns), None while it has not.

    Until it was sent the time is that of connecting; ``drain_until`` is the end of the run for all.
    """
    sent = exchange.t_send
    if not sent and now - exchange.t_due > shape.connect_timeout_s * 1e9:
        return "connect_error", f"no connection within load.connect_timeout_s = {shape.connect_timeout_s:g} s"
    if sent and now - sent > shape.timeout_s * 1e9:
        return "timeout", f"not complete after load.timeout_s = {shape.timeout_s:g} s"
    silent = now - shape.stall_timeout_s * 1e9
    if sent and exchange.last_read < silent and exchange.heard_at < silent:  # the first is asked at less cost
        return "stalled", f"no byte for load.stall_timeout_s = {shape.stall_timeout_s:g} s"
    if now > drain_until:
        return "cancelled", "the run was stopped, or load.drain_s was over, before its end"
    return None


class Rounds:
    """What is in flight, a part at each look: all of it up to 512, of more a tenth. A look at ten thousand at once
    would make sends late by twenty milliseconds."""

    LEAST = 512

    def __init__(self, active: Collection[Exchange]) -> None:
        self._active = active
        self._unseen: list[Exchange] = []
        self._count = 0

    def part(self, every: bool) -> list[Exchange]:
        """The next part of the round, without what has ended meanwhile; with ``every`` all that is in flight."""
        if every or not self._unseen:
            self._unseen = list(self._active)
            self._count = len(self._unseen) if every else max(self.LEAST, len(self._unseen) // 10 + 1)
        part, self._unseen = self._unseen[: self._count], self._unseen[self._count :]
        return [exchange for exchange in part if not exchange.ended]
