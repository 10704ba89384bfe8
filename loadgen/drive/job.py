"""What a worker process is told: one `Job` a repeat. It travels as one line of JSON on the worker's standard input.

API keys are in ``headers``, so a job is never written to disk; ``hidden`` are the values that no record may hold.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from loadgen.arrival import Arrival
from loadgen.backends import RequestOptions

How = Literal["round_robin", "least_in_flight", "sticky"]
"""How requests are dealt to several endpoints (see `balance`)."""


class Labels(msgspec.Struct, frozen=True, kw_only=True):
    """What every record of the job repeats."""

    run: str
    cell: str
    target: str
    rep: int
    attempt: int
    server: str | None = None
    endpoint: str = ""


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """How load is put on. Times in seconds.

    Closed loop: ``concurrency`` over all workers, slots started evenly over ``ramp_s``. Open loop: ``arrival``.
    Requests sent before ``warmup_s`` (None: until told by a `measure` message) are warm-up, and ask for at most
    ``warmup_tokens`` (None: as many as the others). Measuring ends after ``window_s``, or after ``requests`` measured
    requests over all workers; what is in flight then has ``drain_s`` to end. ``max_in_flight`` (over all workers) drops
    requests and counts them; ``max_rps`` spaces sends out.
    """

    concurrency: int | None = None
    ramp_s: float = 0.0
    arrival: Arrival | None = None
    warmup_s: float | None = 0.0
    warmup_tokens: int | None = None
    window_s: float | None = None
    requests: int | None = None
    drain_s: float = 30.0
    max_in_flight: int | None = None
    max_rps: float | None = None
    timeout_s: float = 600.0
    stall_timeout_s: float = 60.0
    connect_timeout_s: float = 10.0
    max_event_bytes: int = 10 * 1024 * 1024


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One repeat of one target, as worker ``worker`` of ``workers`` is to run it. ``out`` is its requests file.

    Where several ``endpoints`` are the target, requests are dealt to them by ``balance``, and ``endpoint`` is the
    first of them.
    """

    labels: Labels
    worker: int
    workers: int
    endpoint: str
    endpoints: tuple[str, ...] = ()
    balance: How = "round_robin"
    backend: str
    options: RequestOptions
    headers: dict[str, str]
    workload: str
    settings: dict[str, Any]
    context: dict[str, Any]
    shape: Shape
    seed: int
    out: str
    proxy: str | None = None
    driver: str = "loadgen"
    phase: Literal["measure", "probe"] = "measure"
    save_text: bool = False
    hidden: tuple[str, ...] = ()
    tokenizer: str | None = None

    @property
    def urls(self) -> tuple[str, ...]:
        """All endpoints: one, or several."""
        return self.endpoints or (self.endpoint,)
