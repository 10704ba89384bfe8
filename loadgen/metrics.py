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

**Rates** carry their name, because "tokens/s" is five different numbers. Of one request: ``decode_tok_s`` = 1 /
tpot (speed while decoding), ``request_tok_s`` = out_tok / e2e (prefill included; what the Qwen2 speed tables print)
and ``request_total_tok_s`` = (in_tok + out_tok) / e2e (what those of Qwen3 print). Of the window: ``output_tok_s``
counts the output tokens that *arrived* in the window, wherever their request began or ended, and ``total_tok_s`` adds
the prompt tokens of the requests whose first token arrived in it. Both are ratios of sums, never means of ratios: a
mean of per-request rates gives short replies the weight of long ones. docs/definitions.md holds them beside others'.

**Failures.** Latency and throughput come from ok requests alone; ``error_rate`` stands beside them, and goodput counts
every failure and every drop as a miss. ``goodput`` is a share of the measured requests; ``goodput_rps`` is a rate of
the window, which counts by the end of a request, as ``request_rps`` does.
"""

from __future__ import annotations

import difflib
import itertools
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


Lengths = tuple[Literal["in_tok", "out_tok"], ...]


class Metric(msgspec.Struct, frozen=True):
    """One row of the table. ``better`` is None where neither more nor less is better.

    ``per`` is what one value belongs to: a request or a chunk (a summary then holds a distribution) or the window (a
    summary holds one number). ``margin`` is the relative difference below which two systems count as equal: for a
    distribution, that of its middle (see `margin`). ``lengths`` names the token counts that the metric depends on,
    so that two systems compare in it only if those agree. ``label`` heads a column of a table.
    """

    name: str
    label: str
    unit: str
    better: Literal["higher", "lower"] | None
    per: Literal["request", "chunk", "window"]
    margin: float
    lengths: Lengths
    definition: str

    @property
    def read_in(self) -> tuple[str, float]:
        """The unit that people read it in ('' for a count), and how many of them one of its own is: ms, per cent."""
        if self.name in ("goodput", "error_rate"):
            return "%", 100.0
        return ("ms", 1e3) if self.unit == "s" else (self.unit, 1.0)


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

    @property
    def head(self) -> str:
        """The same over a column of values: ``p50 TTFT ms``, ``output tok/s``, ``goodput %``."""
        unit = METRICS[self.metric].read_in[0]
        return f"{self.label} {unit}" if unit in ("ms", "%") else self.label


_IN: Lengths = ("in_tok",)
_OUT: Lengths = ("out_tok",)
_BOTH: Lengths = ("in_tok", "out_tok")

# fmt: off
_TABLE = (
    Metric("ttft_s", "TTFT", "s", "lower", "request", 0.03, _IN,
           "From the send of a request to the first event of its reply that carries a token."),
    Metric("ttft_from_schedule_s", "TTFT from schedule", "s", "lower", "request", 0.03, _IN,
           "TTFT plus the wait between the scheduled and the actual send: what a user waited."),
    Metric("tpot_s", "TPOT", "s", "lower", "request", 0.03, (),
           "(e2e - TTFT) / (output tokens - 1) of one reply; blank under two tokens."),
    Metric("e2e_s", "e2e", "s", "lower", "request", 0.03, _BOTH,
           "From the send of a request to the last event that carries a token."),
    Metric("chunk_gap_s", "chunk gap", "s", "lower", "chunk", 0.03, (),
           "Time between two successive token-bearing chunks of a reply; a chunk may hold several tokens."),
    Metric("stall_s", "stall", "s", "lower", "request", 0.03, _OUT,
           "The longest gap between two chunks of one reply."),
    Metric("decode_tok_s", "decode tok/s", "tok/s", "higher", "request", 0.03, (),
           "1 / TPOT of one request: its speed while decoding."),
    Metric("request_tok_s", "request tok/s", "tok/s", "higher", "request", 0.03, _BOTH,
           "Output tokens / e2e of one request, prefill included."),
    Metric("request_total_tok_s", "request total tok/s", "tok/s", "higher", "request", 0.03, _BOTH,
           "(Prompt + output tokens) / e2e of one request: what the Qwen3 speed tables print."),
    Metric("conn_s", "connect", "s", "lower", "request", 0.03, (),
           "Time to open the connection; never part of TTFT."),
    Metric("in_tok", "input tok", "tok", None, "request", 0.01, (),
           "Prompt tokens of a request as the server counted them."),
    Metric("out_tok", "output tok", "tok", None, "request", 0.01, (),
           "Output tokens of a reply, by the server's usage, else by token ids, else by a tokenizer."),
    Metric("request_rps", "requests/s", "req/s", "higher", "window", 0.02, _BOTH,
           "Ok requests that ended inside the window / its length (QPS)."),
    Metric("output_tok_s", "output tok/s", "tok/s", "higher", "window", 0.02, (),
           "Output tokens of ok requests that arrived inside the window / its length."),
    Metric("total_tok_s", "total tok/s", "tok/s", "higher", "window", 0.02, _BOTH,
           "output_tok_s plus the prompt tokens of requests whose first token arrived in the window / its length."),
    Metric("goodput_rps", "goodput req/s", "req/s", "higher", "window", 0.02, _BOTH,
           "Requests that ended ok inside the window within every limit of the objectives / its length."),
    Metric("goodput", "goodput", "", "higher", "window", 0.02, _BOTH,
           "Share of the measured requests that ended ok within every limit of the objectives; all others are misses."),
    Metric("error_rate", "error rate", "", "lower", "window", 0.02, (),
           "Share of the measured requests that did not end ok, those dropped or cut off by the client included."),
    Metric("in_flight", "in flight", "", None, "window", 0.02, (),
           "Mean number of requests sent and not yet ended, over the window."),
)
# fmt: on

METRICS: Mapping[str, Metric] = MappingProxyType({metric.name: metric for metric in _TABLE})
"""Every metric by name."""


def find(word: str) -> Metric:
    """The metric of this name; the suffix of the unit may be left out (``ttft``, ``conn``).

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


def stall(record: Record) -> float | None:
    """The longest gap between two chunks in seconds; None under two chunks."""
    gaps = (after - before for before, after in itertools.pairwise(record.chunk_us))
    longest = max(gaps, default=None)
    return None if longest is None else longest / 1e6


def value(record: Record, metric: str) -> float | None:
    """The value of one request in a metric that is per request; None where it has none.

    Raises KeyError for metrics of the chunk or the window.
    """
    match metric:
        case "ttft_s" | "tpot_s" | "e2e_s" | "conn_s" | "in_tok" | "out_tok":
            held = getattr(record, metric)
            return None if held is None else float(held)
        case "ttft_from_schedule_s":
            wait = late(record)
            return None if record.ttft_s is None or wait is None else record.ttft_s + wait
        case "stall_s":
            return stall(record)
        case "decode_tok_s":  # a TPOT of zero (all tokens came at once) is no speed
            return 1 / record.tpot_s if record.tpot_s else None
        case "request_tok_s":
            return record.out_tok / record.e2e_s if record.out_tok is not None and record.e2e_s else None
        case "request_total_tok_s":
            if record.in_tok is None or record.out_tok is None or not record.e2e_s:
                return None
            return (record.in_tok + record.out_tok) / record.e2e_s
    raise KeyError(metric)
