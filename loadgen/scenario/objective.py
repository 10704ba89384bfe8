"""Objectives and measures as people write them: ``p99 ttft < 0.5 s``, ``error rate < 1 %``, ``output_tok_s > 100``.

In: the text of a scenario's ``objectives``, or of ``comparison.metric``. Out: an `Objective` or a `Measure` with the
metric's own name and the limit in the metric's base unit. What the metrics mean stands in ``metrics.py``; whether an
objective was met is judged in ``compare.py``.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass

from loadgen.metrics import METRICS

STATISTICS = ("p50", "p90", "p95", "p99", "p99.9", "mean", "min", "max")
"""The statistics that a summary holds of a metric with many values."""

SPOKEN = {
    "ttft": "ttft_s",
    "time_to_first_token": "ttft_s",
    "ttft_from_schedule": "ttft_from_schedule_s",
    "tpot": "tpot_s",
    "itl": "chunk_gap_s",
    "e2e": "e2e_s",
    "latency": "e2e_s",
    "chunk_gap": "chunk_gap_s",
    "stall": "stall_s",
    "conn": "conn_s",
    "errors": "error_rate",
    "qps": "request_rps",
    "rps": "request_rps",
}
"""Common speech for a metric, by the metric's own name."""

SCALES = {
    "s": {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6},
    "ratio": {"%": 0.01},
    "tok/s": {"tok/s": 1.0, "tokens/s": 1.0},
    "rps": {"rps": 1.0, "req/s": 1.0, "qps": 1.0},
    "tok": {"tok": 1.0, "tokens": 1.0},
}
"""Units that may be written, by what a metric measures, with their size in its base unit. No unit is the base unit."""

_OBJECTIVE = re.compile(
    r"\s*(?P<measure>[^<>=≤≥]+?)\s*(?P<op><=|>=|<|>|≤|≥)\s*(?P<value>[-+.\deE]+)\s*(?P<unit>\S*)\s*"
)


@dataclass(frozen=True)
class Measure:
    """One number of a repeat: a metric, and which statistic of it; ``statistic`` is None for a metric of the window."""

    statistic: str | None
    metric: str

    def __str__(self) -> str:
        return f"{self.statistic} {self.metric}" if self.statistic else self.metric


@dataclass(frozen=True)
class Objective:
    """A limit that a cell must keep.

    ``op`` is one of ``<``, ``<=``, ``>``, ``>=``; ``value`` is in the metric's base unit (seconds, tokens a second,
    requests a second, or a share between 0 and 1); ``text`` is what the user wrote.
    """

    statistic: str | None
    metric: str
    op: str
    value: float
    text: str


def parse_objective(text: str) -> Objective:
    """The objective that a text states. Raises ValueError with a sentence for a text that states none."""
    match = _OBJECTIVE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no objective; write it like 'p99 ttft < 0.5 s' or 'error_rate < 1 %'")
    measure = parse_measure(match["measure"])
    op = {"≤": "<=", "≥": ">="}.get(match["op"], match["op"])
    value = _limit(match["value"], match["unit"], measure.metric)
    return Objective(measure.statistic, measure.metric, op, value, text.strip())


def parse_measure(text: str) -> Measure:
    """The measure that a text names: ``p50 ttft`` or ``output_tok_s``. Raises ValueError with a sentence."""
    first, _, rest = text.strip().partition(" ")
    if first.lower() in STATISTICS:
        statistic, metric = first.lower(), metric_name(rest)
    elif rest and re.fullmatch(r"p[\d.]+", first):
        raise ValueError(f"{first!r} is not measured; there are {', '.join(STATISTICS)}")
    else:
        statistic, metric = None, metric_name(text)
    many = METRICS[metric].per == "request"
    if many and statistic is None:
        raise ValueError(f"{metric} has a value for each request; say which one is meant, for example 'p99 {metric}'")
    if not many and statistic is not None:
        raise ValueError(f"{metric} is one number for the whole window; write it without {statistic!r}")
    return Measure(statistic, metric)


def metric_name(text: str) -> str:
    """The metric's own name for what a person calls it. Raises ValueError with the nearest name."""
    word = re.sub(r"[\s-]+", "_", text.strip().lower())
    name = SPOKEN.get(word, word)
    if name in METRICS:
        return name
    known = sorted([*METRICS, *SPOKEN])
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.0)[0]
    raise ValueError(f"no metric is called {text.strip()!r}; did you mean {near!r}? There are: {', '.join(METRICS)}")


def kind_of(metric: str) -> str:
    """What a metric measures, as a key of `SCALES`; the suffix of its name is its unit."""
    for suffix, kind in (("_tok_s", "tok/s"), ("_rps", "rps"), ("_tok", "tok"), ("_s", "s")):
        if metric.endswith(suffix):
            return kind
    return "ratio"


def _limit(number: str, unit: str, metric: str) -> float:
    try:
        value = float(number)
    except ValueError:
        raise ValueError(f"{number!r} is no number") from None
    kind = kind_of(metric)
    scales = SCALES[kind]
    if unit and unit.lower() not in scales:
        raise ValueError(f"{metric} is not measured in {unit!r}; its units are {', '.join(scales)}")
    value *= scales[unit.lower()] if unit else 1.0
    if kind == "ratio" and not 0 <= value <= 1:
        raise ValueError(f"{metric} is a share between 0 and 1 and never {number}{unit}; write '1 %' for a hundredth")
    return value
