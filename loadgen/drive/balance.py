"""Which of several endpoints the next request goes to. Each worker balances its own share of the load by the same rule.

* ``round_robin``: one after the other, whatever they do; each worker begins with another one.
* ``least_in_flight``: the one with the fewest requests of this worker in flight; of equals the next in turn. One that
  refused or cut a connection is passed over for a second: it would otherwise always have the fewest in flight, and
  draw all requests to itself.
* ``sticky``: all turns of a conversation to one, the conversations in turn.

Pure: what is known of an endpoint is what was sent to it and how that ended.
"""

from __future__ import annotations

from loadgen.drive.job import How, Job
from loadgen.drive.schedule import Send

SHUNNED_NS = 1_000_000_000
"""So long an endpoint that refused a connection, or cut one, gets nothing of a load that looks for the least busy."""


class Balance:
    """Deals the requests of worker ``worker`` of ``workers`` to ``endpoints`` places, numbered from 0."""

    def __init__(self, how: How, endpoints: int, worker: int, workers: int) -> None:
        self._how = how
        self._worker, self._workers = worker, workers
        self._next = worker
        self._in_flight = [0] * endpoints
        self._shunned = [0] * endpoints

    def choose(self, send: Send, now: int) -> int:
        """The place of a request that is sent now (ns)."""
        count = len(self._in_flight)
        if self._how == "sticky":  # the sessions of a worker are every so manyth
            place = (self._worker + send.session // self._workers) % count
        else:
            place = self._next % count if self._how == "round_robin" else self._least(now)
            self._next = place + 1
        self._in_flight[place] += 1
        return place

    def ended(self, place: int, failed: str | None, at: int) -> None:
        """A request there has ended at ``at`` (ns); ``failed`` is how the driver saw it fail, if it did."""
        self._in_flight[place] -= 1
        if failed in ("connect_error", "reset"):
            self._shunned[place] = at + SHUNNED_NS

    def _least(self, now: int) -> int:
        count = len(self._in_flight)
        in_turn = [(self._next + i) % count for i in range(count)]
        at_hand = [place for place in in_turn if self._shunned[place] <= now] or in_turn
        return min(at_hand, key=self._in_flight.__getitem__)


def make_balance(job: Job) -> Balance | None:
    """The balance of a job; None where there is only one endpoint."""
    return Balance(job.balance, len(job.urls), job.worker, job.workers) if len(job.urls) > 1 else None
