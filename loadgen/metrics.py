"""What our numbers mean: the one table of metrics, and the values of a request.

In: nothing, or a `Record`. Out: the names, units and definitions that the scenario and everything after it use.

**Times of a request.** A user presses a key at ``t_sched``; the request leaves at ``t_send``; the first event that
carries a token arrives at ``t_first`` and the last one at ``t_last``; the reply is over at ``t_end``::

    t_sched ---- t_send ------------ t_first -- chunk -- chunk -- t_last -- usage, [DONE] -- t_end
       |-- late --|------- ttft --------|------- decoding -------|
                  |------------------- e2e ----------------------|

* ``ttft`` ends at the first event that carries a token (text, reasoning under either name, a tool call, or token ids),
  never at the first byte, a role chunk, a comment or an empty delta: those cost the server nothing.
* ``ttft_from_schedule`` also holds the wait before the send. In an open loop it is what a user waited: a client that
  cannot send while the server is slow would else leave out the very requests that suffered (coordinated omission).
* ``e2e`` ends at the last token-bearing event, not at the trailer behind it.
* ``tpot`` = (e2e - ttft) / (out_tok - 1): time per output token after the first. It is a mean over one reply.
* ``chunk_gap`` is the gap between two chunks and is called so, because an engine may put several tokens into a chunk;
  ``stall`` is the longest gap of a reply, which a mean over its tokens hides.

**Tokens** are counted by the server's usage, else by token ids, else by a tokenizer; never by counting chunks and
never by what was asked for.

**Rates** carry their name, because "tokens/s" is four different numbers. Of one request: ``decode_tok_s`` = 1 /
tpot (speed while decoding) and ``request_tok_s`` = out_tok / e2e (prefill included; what the Qwen2 speed tables
print). Of the window: ``output_tok_s`` counts the output tokens that *arrived* in the window, wherever their
request began or ended, and ``total_tok_s`` adds the prompt tokens of the requests whose first token arrived in it.
Both are ratios of sums, never means of ratios: a mean of per-request rates gives short replies the weight of long
ones.

**Failures.** Latency and throughput come from ok requests alone; ``error_rate`` stands beside them, and goodput counts
every failure as a miss.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

import msgspec

from loadgen.errors import UsageError
from loadgen.record import Record

PERCENTILES: Mapping[str, float] = MappingProxyType({"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p99.9": 0.999})
"""The percentiles that a summary holds, by name."""

STATISTICS = ("mean", "sd", "min", "max", *PERCENTILES)
"""What can be asked of a distribution."""


class Metric(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the table. ``better`` is None where neither more nor less is better.

    ``per`` is what one value belongs to: a request or a chunk (a summary then holds a distribution) or the window (a
    summary holds one number). ``margin`` is the relative difference below which two systems count as equal: for a
    distribution, that of its middle (see `margin`). ``lengths`` names the token counts that the metric depends on,
    so that two systems compare in it only if those agree. ``label`` heads a column of a table.
    """

    name: str
    label: str
    unit: str
    definition: str
    better: Literal["higher", "lower"] | None
    per: Literal["request", "chunk", "window"]
    margin: float
    lengths: tuple[Literal["in_tok", "out_tok"], ...] = ()


class Measure(msgspec.Struct, frozen=True):
    """A metric and, for a distribution, which statistic of it. ``str()`` gives the words that `measure` reads."""

    metric: str
    statistic: str | None = None

    def __str__(self) -> str:
        return self.metric if self.statistic is None else f"{self.statistic} {self.metric}"

    @property
    def label(self) -> str:
        """For people: ``p50 TTFT``, ``output tok/s``."""
        label = METRICS[self.metric].label
        return label if self.statistic is None else f"{self.statistic} {label}"


def _of_request(name: str, label: str, definition: str, lengths: tuple[Literal["in_tok", "out_tok"], ...]) -> Metric:
    return Metric(
        name=name,
        label=label,
        unit="s",
        definition=definition,
        better="lower",
        per="request",
        margin=0.03,
        lengths=lengths,
    )


_BOTH: tuple[Literal["in_tok", "out_tok"], ...] = ("in_tok", "out_tok")

_TABLE = (
    _of_request(
        "ttft_s",
        "TTFT",
        "From the send of a request to the first event of its reply that carries a token.",
        ("in_tok",),
    ),
    _of_request(
        "ttft_from_schedule_s",
        "TTFT from schedule",
        "TTFT plus the wait between the scheduled and the actual send: what a user waited.",
        ("in_tok",),
    ),
    _of_request("tpot_s", "TPOT", "(e2e - TTFT) / (output tokens - 1) of one reply; blank under two tokens.", ()),
    _of_request("e2e_s", "e2e", "From the send of a request to the last event that carries a token.", _BOTH),
    Metric(
        name="chunk_gap_s",
        label="chunk gap",
        unit="s",
        definition="Time between two successive token-bearing chunks of a reply; a chunk may hold several tokens.",
        better="lower",
        per="chunk",
        margin=0.03,
    ),
    _of_request("stall_s", "stall", "The longest gap between two chunks of one reply.", ("out_tok",)),
    Metric(
        name="decode_tok_s",
        label="decode tok/s",
        unit="tok/s",
        definition="1 / TPOT of one request: its speed while decoding.",
        better="higher",
        per="request",
        margin=0.03,
    ),
    Metric(
        name="request_tok_s",
        label="request tok/s",
        unit="tok/s",
        definition="Output tokens / e2e of one request, prefill included.",
        better="higher",
        per="request",
        margin=0.03,
        lengths=_BOTH,
    ),
    _of_request("conn_s", "connect", "Time to open the connection; never part of TTFT.", ()),
    Metric(
        name="in_tok",
        label="input tok",
        unit="tok",
        definition="Prompt tokens of a request as the server counted them.",
        better=None,
        per="request",
        margin=0.01,
    ),
    Metric(
        name="out_tok",
        label="output tok",
        unit="tok",
        definition="Output tokens of a reply, by the server's usage, else by token ids, else by a tokenizer.",
        better=None,
        per="request",
        margin=0.01,
    ),
    Metric(
        name="request_rps",
        label="requests/s",
        unit="req/s",
        definition="Ok requests that ended inside the window / its length (QPS).",
        better="higher",
        per="window",
        margin=0.02,
        lengths=_BOTH,
    ),
    Metric(
        name="output_tok_s",
        label="output tok/s",
        unit="tok/s",
        definition="Output tokens of ok requests that arrived inside the window / its length.",
        better="higher",
        per="window",
        margin=0.02,
    ),
    Metric(
        name="total_tok_s",
        label="total tok/s",
        unit="tok/s",
        definition="output_tok_s plus the prompt tokens of requests whose first token arrived in it / its length.",
        better="higher",
        per="window",
        margin=0.02,
    ),
    Metric(
        name="goodput_rps",
        label="goodput req/s",
        unit="req/s",
        definition="Requests that ended ok inside the window within every limit of the objectives / its length.",
        better="higher",
        per="window",
        margin=0.02,
        lengths=_BOTH,
    ),
    Metric(
        name="error_rate",
        label="error rate",
        unit="",
        definition="Share of the measured requests that did not end ok; dropped and cancelled ones count.",
        better="lower",
        per="window",
        margin=0.02,
    ),
    Metric(
        name="in_flight",
        label="in flight",
        unit="",
        definition="Mean number of requests sent and not yet ended, over the window.",
        better=None,
        per="window",
        margin=0.02,
    ),
)

METRICS: Mapping[str, Metric] = MappingProxyType({metric.name: metric for metric in _TABLE})
"""Every metric by name."""


def find(word: str) -> Metric:
    """The metric of this name; the suffix of the unit may be left out (``ttft``, ``goodput``).

    Raises UsageError for any other word, with the nearest name.
    """
    for name in (word, f"{word}_s", f"{word}_rps"):
        if name in METRICS:
            return METRICS[name]
    near = difflib.get_close_matches(word, METRICS, n=1, cutoff=0.0)[0]
    raise UsageError(f"metric {word!r} does not exist; did you mean {near!r}? There are: {', '.join(METRICS)}.")


def measure(words: str) -> Measure:
    """The measure that ``p99 ttft``, ``mean e2e_s`` or ``output_tok_s`` names; a distribution's default is its p50.

    Raises UsageError for unknown words and for a statistic of a metric that is one number per window.
    """
    *first, name = words.split() or [""]
    metric = find(name)
    if not first:
        return Measure(metric.name, None if metric.per == "window" else "p50")
    statistic = " ".join(first)
    if metric.per == "window":
        raise UsageError(f"{words!r}: {metric.name} is one number per window and has no {statistic!r}; write {name!r}.")
    if statistic not in STATISTICS:
        raise UsageError(f"{words!r}: there is no statistic {statistic!r}; there are: {', '.join(STATISTICS)}.")
    return Measure(metric.name, statistic)


def margin(what: Measure) -> float:
    """The default margin of a measure, relative: 2 % for rates of the window, 3 % for middles, 5 % for tails."""
    if what.statistic in ("p90", "p95", "p99", "p99.9", "max"):
        return 0.05
    return METRICS[what.metric].margin


def tpot(ttft_s: float | None, e2e_s: float | None, out_tok: int | None) -> float | None:
    """Seconds per output token after the first; None under two tokens and where a part is unknown."""
    if ttft_s is None or e2e_s is None or out_tok is None or out_tok < 2:
        return None
    return (e2e_s - ttft_s) / (out_tok - 1)


def late(record: Record) -> float | None:
    """Seconds between the scheduled and the actual send; None for a request that was never sent."""
    return None if record.t_send is None else record.t_send - record.t_sched


def ttft_from_schedule(record: Record) -> float | None:
    """Seconds from the scheduled send to the first token; None where there is no TTFT."""
    wait = late(record)
    return None if record.ttft_s is None or wait is None else record.ttft_s + wait


def chunk_gaps(record: Record) -> list[float]:
    """Seconds between successive chunks of the reply; empty under two chunks."""
    return [(after - before) / 1e6 for before, after in zip(record.chunk_us, record.chunk_us[1:], strict=False)]


def stall(record: Record) -> float | None:
    """The longest gap between chunks in seconds; None under two chunks."""
    return max(chunk_gaps(record), default=None)


def decode_tok_s(record: Record) -> float | None:
    """1 / TPOT; None where there is no TPOT or it is zero (all tokens came at once)."""
    return 1 / record.tpot_s if record.tpot_s else None


def request_tok_s(record: Record) -> float | None:
    """Output tokens / e2e; None where either is unknown."""
    return record.out_tok / record.e2e_s if record.out_tok is not None and record.e2e_s else None
