"""A server with a known capacity, simulated without time or sockets: what a client would have recorded of it.

It has ``slots`` and steps of ``step_s``: at each step every request that holds a slot gets one token, and free slots
are given to those that wait, first come first served. With replies of N tokens it can serve slots / (step_s N) requests
a second, and it shows that by nothing but latency.
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass

from loadgen.arrival import Arrival, offsets
from loadgen.record import Record
from loadgen.summarise import summarise
from loadgen.summary import Context, Summary, Window

WARMUP_S = 3.0


@dataclass(frozen=True)
class Queue:
    """The server, and the window that it is looked at for."""

    slots: int = 8
    step_s: float = 0.01
    tokens: int = 10
    window_s: float = 30.0

    @property
    def capacity_rps(self) -> float:
        return self.slots / (self.step_s * self.tokens)

    def at_rate(self, rate_rps: float, seed: int, context: Context) -> Summary:
        """One window of an open loop with Poisson arrivals."""
        arrivals = []
        for offset in offsets(Arrival(kind="poisson", rate_rps=rate_rps), seed):
            if offset >= WARMUP_S + self.window_s:
                break
            arrivals.append(offset)
        return self._summary(self._served(arrivals), context)

    def at_concurrency(self, concurrency: int, seed: int, context: Context) -> Summary:
        """One window of a closed loop: each slot of the client sends when its reply has ended."""
        rng = random.Random(seed)
        waiting = [rng.random() * self.step_s for _ in range(concurrency)]
        heapq.heapify(waiting)
        free = [0.0] * self.slots
        served = []
        while waiting[0] < WARMUP_S + self.window_s:
            arrival = heapq.heappop(waiting)
            served.append((arrival, start := self._start(free, arrival)))
            heapq.heappush(waiting, start + self.tokens * self.step_s + 1e-5)
        return self._summary(served, context)

    def _served(self, arrivals: list[float]) -> Iterator[tuple[float, float]]:
        free = [0.0] * self.slots
        return ((arrival, self._start(free, arrival)) for arrival in arrivals)

    def _start(self, free: list[float], arrival: float) -> float:
        """The step at which a request that arrived gets a slot."""
        start = math.ceil(max(arrival, heapq.heappop(free)) / self.step_s - 1e-9) * self.step_s
        heapq.heappush(free, start + self.tokens * self.step_s)
        return start

    def _summary(self, served: Iterator[tuple[float, float]] | list[tuple[float, float]], context: Context) -> Summary:
        records = (self._record(number, arrival, start) for number, (arrival, start) in enumerate(served))
        return summarise(records, Window(WARMUP_S, WARMUP_S + self.window_s), context)

    def _record(self, number: int, arrival: float, start: float) -> Record:
        ttft, length = start + self.step_s - arrival, self.tokens * self.step_s
        e2e = ttft + length - self.step_s
        return Record(
            seq=number, session=number, phase="measure" if arrival >= WARMUP_S else "warmup", status="ok",
            t_sched=arrival, t_send=arrival, t_first=arrival + ttft, t_last=arrival + e2e, t_end=arrival + e2e,
            ttft_s=ttft, e2e_s=e2e, tpot_s=self.step_s, out_tok=self.tokens, in_tok=8, tok_source="usage",
            chunk_us=[round(ttft * 1e6), round(e2e * 1e6)], clock="kernel",
        )  # fmt: skip
