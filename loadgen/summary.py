"""What a repeat came to: the `Summary` that `summarise` makes, and what it is asked with.

These are the structs of ``summary.json``; they know nothing of how they are computed. A field is None where its value
does not exist or its sample is too small: never zero, never NaN. The fields that are named like a metric in
``metrics.py`` hold that metric: a `Distribution` for those per request or chunk, a number for those of the window.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from loadgen.metrics import Measure

VERSION = 1
"""Version of the summary's layout; raised when a field changes its meaning."""


class Window(msgspec.Struct, frozen=True):
    """The measured window, in seconds from the start of the repeat. What came before ``w0`` is warm-up."""

    w0: float
    w1: float

    @property
    def length_s(self) -> float:
        return self.w1 - self.w0


class Doubt(msgspec.Struct, frozen=True):
    """Something that weakens a number: a code for programs, a full sentence with its numbers for people."""

    code: str
    text: str


class Limit(msgspec.Struct, frozen=True):
    """What an objective asks of single requests: its text, a metric per request, ``value`` in that metric's unit."""

    text: str
    metric: str
    value: float


class Misses(msgspec.Struct, frozen=True):
    """How many of ``n`` requests missed a limit. Misses come in clusters: ``n_eff`` is the number of independent
    requests that these are worth."""

    n: int
    missed: int
    n_eff: float


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """What the records do not say of their repeat.

    ``exact_tok`` is N where replies of exactly N tokens were asked for, 0 for each of a number of its own, else None.
    ``concurrency`` is set for a closed loop and ``scheduled`` (the number of requests the schedule wanted sent inside
    the window) for an open one; of ``conversations`` these are the first turns alone, and a slot may hold one that
    thinks. ``burst`` is True where all were to be sent at once. ``worker_cpu`` is the share of a core that each worker
    used over the window (1.0 = one core). ``limits`` are upper limits of request metrics that goodput asks for, by
    metric name; ``asked`` are those of every objective by itself. ``prefix_cache`` is None where nobody knows whether
    the server keeps one. ``skew_s`` is the most by which workers of several machines can have started apart, None
    where all read one clock. ``doubts`` are those that the caller already has; they come first in the summary.
    """

    exact_tok: int | None = None
    stream: bool = True
    concurrency: int | None = None
    scheduled: int | None = None
    conversations: bool = False
    burst: bool = False
    worker_cpu: tuple[float, ...] = ()
    limits: dict[str, float] = msgspec.field(default_factory=dict)
    asked: tuple[Limit, ...] = ()
    prefix_cache: bool | None = None
    skew_s: float | None = None
    doubts: tuple[Doubt, ...] = ()


class Distribution(msgspec.Struct, frozen=True, kw_only=True):
    """The values of one metric: ``n`` of them. Percentiles are nearest rank, of raw values, None below their floor.

    ``intervals`` are 95 % intervals of the percentiles inside this one repeat, for display: they know nothing of the
    noise between repeats. ``certified`` maps a percentile to the value that it does not exceed with 99 % confidence.
    ``n_eff`` maps a percentile to the number of independent samples that the sample is worth there. All three are empty
    for metrics whose values have no order in time to tell correlation from.
    """

    n: int
    mean: float | None = None
    sd: float | None = None
    min: float | None = None
    max: float | None = None
    p50: float | None = None
    p90: float | None = None
    p95: float | None = None
    p99: float | None = None
    p99_9: float | None = msgspec.field(default=None, name="p99.9")
    intervals: dict[str, tuple[float, float]] = msgspec.field(default_factory=dict)
    certified: dict[str, float] = msgspec.field(default_factory=dict)
    n_eff: dict[str, float] = msgspec.field(default_factory=dict)

    def get(self, statistic: str) -> float | None:
        """The value of ``mean``, ``p99``, ``p99.9`` ...; raises AttributeError for what is no statistic."""
        value = getattr(self, statistic.replace(".", "_"))
        return None if value is None else float(value)


class Audit(msgspec.Struct, frozen=True, kw_only=True):
    """How well the client itself did: what says whether the rest can be trusted.

    ``late_s`` is the send lateness (closed loop: since the end of the slot's previous reply); ``late_p99_s`` its
    p99 by nearest rank whatever the sample, the single latest send left out of samples under 100; ``late_limit_s``
    the limit it is held against. ``lag_s`` is how long received bytes waited for the client at worst, per request.
    ``offered_rps`` and ``achieved_rps`` are requests a second that the schedule wanted and that were sent in the
    window; both None where there is no schedule. ``coalesced_share`` is merged reads per chunk; ``tok_per_chunk``
    output tokens per chunk; ``clocks`` counts requests by who stamped them. ``warmup_change`` is the relative change
    of the output rate between the last two 5 s before the window; None where warm-up was shorter than 10 s.
    ``skew_s`` is the most by which workers can have started apart, None where all read one clock. ``ended_tok_s``
    counts the output tokens of replies that ended in the window, all of each; None where there is no closed loop.
    """

    late_s: Distribution
    late_p99_s: float | None
    late_limit_s: float
    lag_s: Distribution
    offered_rps: float | None
    achieved_rps: float | None
    worker_cpu: tuple[float, ...]
    clocks: dict[str, int]
    coalesced_share: float | None
    tok_per_chunk: float | None
    warmup_change: float | None
    skew_s: float | None = None
    ended_tok_s: float | None = None


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """One repeat of one target in one cell.

    ``status`` counts the measured requests by status and ``warmup_status`` those of the warm-up. ``requests`` is all
    measured ones, ``sent`` those that left (not dropped), ``ok`` and ``failed`` split ``requests``. Distributions are
    of ok requests of the measured phase; rates of the window count by arrival whatever the phase. ``in_tok_sum`` and
    ``out_tok_sum`` are totals over ok measured requests, ``failed_tok`` the tokens of failed ones that the server
    counted. ``wrong_length`` is the number of replies without exactly the tokens asked for, None where no exact length
    was. ``prompts`` is the number of distinct prompts among ``requests``; ``cached_share`` the share of prompt tokens
    served from a prefix cache, None where the server does not say. ``errors`` holds up to three distinct messages per
    status. ``misses`` counts requests that missed a limit: by the text of each objective on requests (of ok requests
    that have a value), and under ``error_rate`` and ``goodput`` (of all measured requests). ``invalid`` is what forbids
    trusting the repeat, ``doubts`` what weakens it.
    """

    v: int = VERSION
    state: Literal["ok", "invalid", "failed"]
    window: Window
    requests: int
    sent: int
    ok: int
    failed: int
    status: dict[str, int]
    warmup_status: dict[str, int]
    finish: dict[str, int]
    tok_source: dict[str, int]
    errors: dict[str, list[str]]

    request_rps: float | None
    output_tok_s: float | None
    total_tok_s: float | None
    goodput_rps: float | None
    goodput: float | None = None
    error_rate: float | None
    in_flight: float | None

    ttft_s: Distribution
    ttft_from_schedule_s: Distribution
    tpot_s: Distribution
    e2e_s: Distribution
    chunk_gap_s: Distribution
    stall_s: Distribution
    decode_tok_s: Distribution
    request_tok_s: Distribution
    request_total_tok_s: Distribution = Distribution(n=0)
    conn_s: Distribution
    in_tok: Distribution
    out_tok: Distribution

    in_tok_sum: int | None
    out_tok_sum: int | None
    failed_tok: int
    wrong_length: int | None
    prompts: int | None
    cached_share: float | None
    audit: Audit
    misses: dict[str, Misses] = {}
    doubts: tuple[Doubt, ...] = ()
    invalid: tuple[Doubt, ...] = ()

    def get(self, what: Measure) -> float | None:
        """The value of a measure, None where this repeat has none."""
        held = getattr(self, what.metric)
        if isinstance(held, Distribution):
            return held.get(what.statistic or "p50")
        return None if held is None else float(held)
