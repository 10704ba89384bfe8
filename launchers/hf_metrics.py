"""What the server says of itself at /metrics (Prometheus text). What is not known is absent, never 0.

Counted here, on the server's side of the socket: what a client measures can be held against it. ``batch_size`` has one
observation per decode step, so its sum over its count is the mean batch that was run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from hf_reply import Reply
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily

if TYPE_CHECKING:
    from hf_memory import Memory

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
OUTCOMES = ("stop", "length", "cancelled", "error", "refused")


class CudaMemory:
    """The GPUs' memory as torch counts it (`hf_memory`), of all ranks; nothing where there is no GPU."""

    def __init__(self, read: Callable[[], Memory | None]) -> None:
        self._read = read

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Prometheus' collector protocol."""
        if (memory := self._read()) is not None:
            since = "since the start or the last POST /reset_peak_memory, summed over GPUs"
            yield GaugeMetricFamily("hf:memory_peak_bytes", f"Peak of live tensors {since}", value=memory.peak)
            yield GaugeMetricFamily(
                "hf:memory_reserved_bytes", f"Most that torch's allocator held {since}", value=memory.reserved
            )


class Metrics:
    """The server's counters. One object a process; the event loop alone writes to it.

    ``prefix`` begins every name; `ct2_server` counts the same things under its own.
    """

    def __init__(
        self,
        info: Mapping[str, str],
        kv_capacity_tokens: int | None,
        memory: Callable[[], Memory | None] = lambda: None,
        prefix: str = "hf",
    ) -> None:
        registry = self._registry = CollectorRegistry()
        Info(f"loadgen_{prefix}", "How this server runs", registry=registry).info(dict(info))
        ProcessCollector(registry=registry)  # process_resident_memory_bytes and its kin, where /proc is
        registry.register(CudaMemory(memory))
        if kv_capacity_tokens is not None:
            held = Gauge(f"{prefix}:kv_capacity_tokens", "Tokens that the KV cache holds", registry=registry)
            held.set(kv_capacity_tokens)
        self.running = Gauge(f"{prefix}:requests_running", "Requests in the batch", registry=registry)
        self.waiting = Gauge(f"{prefix}:requests_waiting", "Requests that wait for a place", registry=registry)
        self.batch_size = Histogram(
            f"{prefix}:batch_size", "Rows of each decode step", buckets=BATCHES, registry=registry
        )
        self.batch_size_max = Gauge(f"{prefix}:batch_size_max", "Largest decode step so far", registry=registry)
        self.prompt_tokens = Counter(
            f"{prefix}:prompt_tokens", "Prompt tokens of requests that left the queue", registry=registry
        )
        self.generation_tokens = Counter(f"{prefix}:generation_tokens", "Tokens that left the model", registry=registry)
        self.requests = Counter(f"{prefix}:requests", "Requests by how they ended", ["outcome"], registry=registry)
        for outcome in OUTCOMES:
            self.requests.labels(outcome)
        first, queue = "From a request's arrival to its first token", "From a request's arrival to its prefill"
        self.ttft = Histogram(f"{prefix}:time_to_first_token_seconds", first, buckets=SECONDS, registry=registry)
        self.queue = Histogram(f"{prefix}:queue_seconds", queue, buckets=SECONDS, registry=registry)
        self._largest = 0

    def text(self) -> bytes:
        """The page /metrics."""
        return generate_latest(self._registry)

    def started(self, reply: Reply, at: float | None = None) -> None:
        """A request leaves the queue, now or ``at`` a time of ``time.perf_counter``."""
        reply.started = time.perf_counter() if at is None else at
        self.queue.observe(reply.started - reply.arrived)
        self.prompt_tokens.inc(len(reply.ask.prompt))

    def step(self, rows: int) -> None:
        """A decode step of so many rows."""
        self.batch_size.observe(rows)
        if rows > self._largest:
            self._largest = rows
            self.batch_size_max.set(rows)

    def token(self, reply: Reply) -> None:
        """A token was handed over."""
        self.generation_tokens.inc()
        if reply.tokens == 1 and reply.first is not None:
            self.ttft.observe(reply.first - reply.arrived)

    def ended(self, outcome: str) -> None:
        """A request that was taken has ended."""
        self.requests.labels(outcome).inc()

    def refused(self) -> None:
        """A request was answered with an error before it was taken."""
        self.requests.labels("refused").inc()
