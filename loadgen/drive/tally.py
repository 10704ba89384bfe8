"""What a worker says of itself: counts every second while it runs, and its audit at the end.

These are for the eye and for the audit. The numbers of a report come from the records.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec

from loadgen.drive.clock import cpu_s, now_ns
from loadgen.record import Record


class Tick(msgspec.Struct, kw_only=True):
    """One second of one worker. ``t`` is its end (s from the start of the repeat); counts are of this second alone.

    ``ttft_ms`` holds the TTFTs of the requests that were understood in it (at most 200); ``late_us_max`` the longest
    send lateness; ``loop_us_max`` the longest that the loop was busy before it polled again; ``backlog`` the pieces
    waiting to be understood; ``cpu`` the share of a core that the process used.
    """

    worker: int
    t: float
    sent: int = 0
    ended: dict[str, int] = {}
    tokens: int = 0
    in_flight: int = 0
    backlog: int = 0
    ttft_ms: list[float] = []
    late_us_max: int = 0
    loop_us_max: int = 0
    cpu: float = 0.0


class Conversed(msgspec.Struct, frozen=True, kw_only=True):
    """Conversations of a repeat: those that were ``begun``, that came to their end (``whole``), and that a failed turn
    ended (``broken``). The others were cut by the end of the repeat."""

    begun: int
    whole: int
    broken: int


class Audit(msgspec.Struct, kw_only=True):
    """A worker's whole repeat. ``cpu_share`` is CPU over time in the window: from the first measured send to the end
    of sending, or to the last reply where so many requests are measured.

    ``cpu_s`` is all of it, from the job's arrival on. ``clock_steps`` counts how often somebody set the clock,
    ``rss_mib`` is the largest resident memory so far. ``compiled``: what is done for every token was done in C (see
    `fast.py`); None in summaries of older versions.
    """

    worker: int
    digest: int
    sent: int
    dropped: int
    cpu_s: float
    cpu_share: float | None
    rss_mib: float
    clock_steps: int
    kernel_clock: bool
    loop_us_max: int
    connections: int
    compiled: bool | None = None
    conversations: Conversed | None = None


class Tally:
    """Counts up a second, then hands it over as a `Tick`."""

    def __init__(self, worker: int, start: int) -> None:
        self.worker = worker
        self.start = start
        self.sent = 0
        self.sent_total = 0
        self.dropped = 0
        self.ended: Counter[str] = Counter()
        self.tokens = 0
        self.ttft_ms: list[float] = []
        self.late_ns = 0
        self.loop_ns = 0
        self.loop_ns_worst = 0
        self.due = start + 1_000_000_000
        self._cpu = cpu_s()
        self._at = start

    def count_sent(self, late_ns: int) -> None:
        """A request went out ``late_ns`` after it was due."""
        self.sent += 1
        if late_ns > self.late_ns:
            self.late_ns = late_ns

    def count_record(self, record: Record) -> None:
        """A record was written."""
        self.ended[record.status] += 1
        self.tokens += record.out_tok or 0
        if record.ttft_s is not None and len(self.ttft_ms) < 200:
            self.ttft_ms.append(round(record.ttft_s * 1e3, 3))

    def tick(self, in_flight: int, backlog: int) -> Tick:
        """The second that has passed; starts the next."""
        now, cpu = now_ns(), cpu_s()
        tick = Tick(
            worker=self.worker,
            t=(now - self.start) / 1e9,
            sent=self.sent,
            ended=dict(self.ended),
            tokens=self.tokens,
            in_flight=in_flight,
            backlog=backlog,
            ttft_ms=self.ttft_ms,
            late_us_max=self.late_ns // 1000,
            loop_us_max=self.loop_ns // 1000,
            cpu=round((cpu - self._cpu) / max((now - self._at) / 1e9, 1e-9), 4),
        )
        self.sent_total += self.sent
        self.loop_ns_worst = max(self.loop_ns_worst, self.loop_ns)
        self.sent, self.tokens, self.late_ns, self.loop_ns = 0, 0, 0, 0
        self.ended, self.ttft_ms = Counter(), []
        self._cpu, self._at = cpu, now
        self.due += 1_000_000_000
        return tick


def say(kind: str, value: Any) -> bytes:
    """A message to the parent: one line of JSON, ``{kind: value}``."""
    return msgspec.json.encode({kind: value}) + b"\n"
