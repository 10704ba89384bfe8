"""records -> `Summary`: what one repeat of one target came to, with everything that weakens it.

In: the records of a repeat in any order, the window, and what the records do not say (`Context`). Out: the heart of
``summary.json``. It is pure: the same records give the same summary, so a stored one can always be made again. The
definitions are in ``metrics.py``, the rules of the percentiles in ``statistics.py``, the limits in ``audit.py``.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from loadgen.audit import audited_p99, doubts, invalid, late_limit
from loadgen.metrics import METRICS
from loadgen.record import Record
from loadgen.statistics import autocorrelation_time
from loadgen.summary import Audit, Context, Misses, Summary, Window

if TYPE_CHECKING:
    from loadgen.collect import Collector
    from loadgen.sample import Floats

_IN_TIME = ("ttft_s", "ttft_from_schedule_s", "tpot_s", "e2e_s", "stall_s")
"""Metrics whose percentiles have intervals that know how neighbours are correlated."""


def summarise(
    records: Iterable[Record], window: Window, context: Context | None = None, folder: Path | None = None
) -> Summary:
    """The summary of one repeat. Memory grows by some 170 bytes a record, whatever the length of the replies; with a
    ``folder`` for what has to wait by 50, and only at the end.

    A repeat without an ok request has None for its rates and empty distributions, and the state "failed".
    """
    from loadgen.collect import Collector

    collected = Collector(window, context or Context(), folder)
    try:
        for record in records:
            collected.add(record)
        return summary_of(collected)
    finally:
        collected.release()


def summary_of(collected: Collector) -> Summary:
    """The summary of what a collector was given; it takes no more."""
    collected.close()
    context, series = collected.context, _Series(collected)
    summary = Summary(
        state="ok",
        window=collected.window,
        **_counts(collected),
        **_rates(collected),
        **_distributions(collected, series),
        audit=_audit(collected),
        misses=_misses(collected, series),
    )
    against = invalid(summary)
    return msgspec.structs.replace(
        summary,
        state="failed" if summary.ok == 0 else "invalid" if against else "ok",
        doubts=(*context.doubts, *doubts(summary, context)),
        invalid=against,
    )


def _counts(of: Collector) -> dict[str, Any]:
    from loadgen.arrays import np

    requests, ok = of.status.total(), of.status["ok"]
    out_tok, in_tok = of.column("out_tok"), of.column("in_tok")
    return {
        "requests": requests,
        "sent": len(of.late),
        "ok": ok,
        "failed": requests - ok,
        "status": dict(of.status),
        "warmup_status": dict(of.warmup_status),
        "finish": dict(of.finish),
        "tok_source": dict(of.tok_source),
        "errors": {status: texts for status, texts in of.errors.items() if texts},
        "in_tok_sum": None if np.isnan(in_tok).all() else int(np.nansum(in_tok)),
        "out_tok_sum": None if np.isnan(out_tok).all() else int(np.nansum(out_tok)),
        "failed_tok": of.failed_tok,
        "wrong_length": None if of.context.exact_tok is None else of.wrong_length,
        "prompts": of.distinct_prompts(),
        "cached_share": of.cached_tok / of.cached_of if of.cached_of else None,
    }


def _rates(of: Collector) -> dict[str, Any]:
    requests, length = of.status.total(), of.window.length_s
    rates: dict[str, Any] = dict.fromkeys(("request_rps", "output_tok_s", "total_tok_s", "goodput_rps", "goodput"))
    rates["error_rate"] = (requests - of.status["ok"]) / requests if requests else None
    limited = _limited(of)
    if limited and requests:
        rates["goodput"] = 1 - float(of.outcomes()[1].mean())
    rates["in_flight"] = of.in_flight_s / length if requests and length > 0 else None
    if of.ok_any_phase == 0 or length <= 0:
        return rates
    rates["request_rps"] = of.completions / length
    # A reply whose tokens nobody counted would pass for an empty one: then there is no token rate at all.
    if not of.unknown_tokens:
        rates["output_tok_s"] = of.arrivals.tokens[0] / length
        if not of.unknown_prompts:
            rates["total_tok_s"] = (of.arrivals.tokens[0] + of.prompt_tok) / length
    if limited:
        rates["goodput_rps"] = of.good / length
    return rates


def _limited(of: Collector) -> bool:
    """Whether there are limits that every request can keep or miss: whole replies have no times between tokens."""
    streamed_only = {"ttft_s", "ttft_from_schedule_s", "tpot_s", "stall_s", "decode_tok_s"}
    return bool(of.context.limits) and (of.context.stream or not streamed_only & set(of.context.limits))


def _misses(of: Collector, series: _Series) -> dict[str, Misses]:
    """By objective: requests that missed it, in the order of time."""
    from loadgen.arrays import np

    failed, bad = of.outcomes()
    found = {"error_rate": failed} | ({"goodput": bad} if _limited(of) else {})
    for limit in of.context.asked:
        values = series[limit.metric]
        values = values[~np.isnan(values)]
        found[limit.text] = values > limit.value if METRICS[limit.metric].better == "lower" else values < limit.value
    return {
        text: Misses(len(missed), int(missed.sum()), len(missed) / autocorrelation_time(missed))
        for text, missed in found.items()
        if len(missed)
    }


class _Series:
    """A value per ok measured request by metric, in the order of sending; NaN for none. Each is made when it is asked
    for: all of them at once would be the most that a long repeat takes."""

    NAMES = (*_IN_TIME, "decode_tok_s", "request_tok_s", "request_total_tok_s", "conn_s", "in_tok", "out_tok")

    def __init__(self, of: Collector) -> None:
        self._column = of.column

    def __getitem__(self, metric: str) -> Floats:
        column = self._column
        match metric:
            case "ttft_from_schedule_s":
                return column("ttft") + column("late")
            case "decode_tok_s":
                return _over(1.0, column("tpot"))
            case "request_tok_s":
                return _over(column("out_tok"), column("e2e"))
            case "request_total_tok_s":
                return _over(column("in_tok") + column("out_tok"), column("e2e"))
        return column(metric.removesuffix("_s"))


def _over(above: Floats | float, below: Floats) -> Floats:
    """The quotient; a speed over no time is none."""
    from loadgen.arrays import np

    with np.errstate(divide="ignore", invalid="ignore"):
        np.divide(above, below, out=below)
    below[~np.isfinite(below)] = np.nan
    return below


def _distributions(of: Collector, series: _Series) -> dict[str, Any]:
    from loadgen.sample import distribution, distribution_in_time

    made = {name: (distribution_in_time if name in _IN_TIME else distribution)(series[name]) for name in series.NAMES}
    return {**made, "chunk_gap_s": of.arrivals.gaps.distribution()}


def _audit(of: Collector) -> Audit:
    from loadgen.arrays import np
    from loadgen.sample import distribution

    late = np.sort(of.late.load())
    ttft = of.column("ttft")
    open_loop, length = of.context.concurrency is None, of.window.length_s
    # An arrival process knows when conversations begin; when their later turns are due only the replies could say.
    offered = of.scheduled if of.context.scheduled is None else of.context.scheduled + of.later
    before, last = of.arrivals.tokens[1:]
    return Audit(
        late_s=distribution(late),
        late_p99_s=audited_p99(late),
        late_limit_s=late_limit(ttft[~np.isnan(ttft)], of.context.burst),
        lag_s=distribution(of.lag.load()),
        offered_rps=offered / length if open_loop and length > 0 else None,
        achieved_rps=of.sent_in_time / length if open_loop and length > 0 else None,
        worker_cpu=of.context.worker_cpu,
        clocks=dict(of.clocks),
        coalesced_share=of.coalesced / of.chunks if of.chunks else None,
        tok_per_chunk=of.chunked_tok / of.chunks if of.chunks and of.context.stream else None,
        warmup_change=abs(last - before) / before if of.window.w0 >= 10 and before > 0 else None,
        skew_s=of.context.skew_s,
        ended_tok_s=_ended_tok_s(of),
    )


def _ended_tok_s(of: Collector) -> float | None:
    """Of a closed loop of single requests, whose rate should be the same however its tokens are counted."""
    if of.context.concurrency is None or of.context.conversations or of.unknown_tokens or of.window.length_s <= 0:
        return None
    return of.ended_tok / of.window.length_s
