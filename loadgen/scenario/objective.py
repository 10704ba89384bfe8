"""Objectives as people write them: ``p99 ttft < 0.5 s``, ``error rate < 1 %``, ``output_tok_s > 100``.

In: the text of a scenario's ``objectives``, or of ``comparison.metric``. Out: an `Objective`, or a measure by its own
name, with the limit in the metric's base unit. What the metrics mean stands in ``metrics.py``; whether an objective
was met is judged in ``compare.py``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

import msgspec

from loadgen.errors import UsageError
from loadgen.metrics import METRICS, STATISTICS, Measure, measure

SPOKEN: Mapping[str, str] = MappingProxyType(
    {
        "errors": "error_rate",
        "latency": "e2e_s",
        "time_to_first_token": "ttft_s",
        "qps": "request_rps",
        "rps": "request_rps",
    }
)
"""Common speech for a metric, by the metric's own name; names without their unit are known to ``metrics.py``."""

SCALES: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {
        "s": {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6},
        "tok/s": {"tok/s": 1.0, "tokens/s": 1.0},
        "req/s": {"rps": 1.0, "req/s": 1.0, "qps": 1.0},
        "tok": {"tok": 1.0, "tokens": 1.0},
        "share": {"%": 0.01},
        "": {},
    }
)
"""Units that may be written, by a metric's base unit, with their size in it. No unit is the base unit."""

SHARES = ("error_rate", "goodput")
"""Metrics between 0 and 1 that people write in per cent."""

_BARE_S = 30.0
"""From here on a time without a unit is taken for milliseconds that somebody forgot to call so."""

_OBJECTIVE = re.compile(r"(?P<words>[^<>=≤≥]+?)\s*(?P<op><=|>=|<|>|≤|≥)\s*(?P<number>[-+.\deE]+)\s*(?P<unit>\S*)")


class Objective(msgspec.Struct, frozen=True):
    """A limit that a cell must keep.

    ``statistic`` is None for a metric that is one number per window. ``op`` is one of ``<``, ``<=``, ``>``, ``>=``;
    ``value`` is in the metric's base unit (seconds, tokens a second, requests a second, or a share between 0 and 1);
    ``text`` is what the user wrote.
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
    what = parse_measure(match["words"])
    asked = match["words"].split()[0].lower()
    if what.statistic is not None and asked not in STATISTICS:
        raise ValueError(f"{what.metric} has many values in a window; say which is meant: 'p99 {match['words']} ...'")
    op = {"≤": "<=", "≥": ">="}.get(match["op"], match["op"])
    value = _limit(match["number"], match["unit"], what.metric)
    return Objective(what.statistic, what.metric, op, value, text.strip())


def parse_measure(text: str) -> Measure:
    """The measure that a text names, such as ``p50 ttft`` or ``output_tok_s``. Raises ValueError with a sentence."""
    words = text.lower().split()
    statistic = words[:1] if words and (words[0] in STATISTICS or re.fullmatch(r"p[\d.]+", words[0])) else []
    name = "_".join(words[len(statistic) :])
    try:
        return measure(" ".join([*statistic, SPOKEN.get(name, name)]))
    except UsageError as error:
        raise ValueError(str(error).removesuffix(".")) from None


def _limit(number: str, unit: str, metric: str) -> float:
    kind = "share" if metric in SHARES else METRICS[metric].unit
    scales = SCALES[kind]
    try:
        value = float(number) * (scales[unit.lower()] if unit else 1.0)
    except ValueError:
        raise ValueError(f"{number!r} is no number") from None
    except KeyError:
        raise ValueError(
            f"{metric} is not measured in {unit!r} but in {', '.join(scales) or 'plain numbers'}"
        ) from None
    if kind == "s" and not unit and value >= _BARE_S:
        raise ValueError(f"{metric} is in seconds where no unit stands, and {number} s is long; write {number} ms or s")
    if kind == "share" and not 0 <= value <= 1:
        raise ValueError(f"{metric} is a share between 0 and 1, never {number}{unit}; a hundredth is written '1 %'")
    return value
